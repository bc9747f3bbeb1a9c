"""Replicas with a part of the roles each, and who takes over what one that is killed leaves."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest
from redis import Redis
from tests.conftest import Stack, start_replica, start_stack, stop_stack
from tests.e2e.receiver import receiver
from tests.e2e.test_jobs import create, entry, finished, picture, replica_of

from camserve_server.stores import keys

pytestmark = pytest.mark.timeout(180)
# What a killed replica had is another's within the lease and this.
TAKEN_OVER_S = 5.0
EVENT_LEASE_S = 30.0


@contextmanager
def another_replica(stack: Stack, **settings):
    """A second server on the state of a stack."""
    process, ready = start_replica(stack, **settings)
    with process:
        try:
            while not ready.exists():
                assert process.poll() is None
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def seen():
    with receiver() as listening:
        yield listening


@pytest.fixture(scope="module")
def running(tmp_path_factory, seen):
    """A stack that takes calls and does nothing else."""
    stack = start_stack(tmp_path_factory.mktemp("stack"), roles="api", webhook_allow=seen.place)
    yield stack
    stop_stack(stack)


@pytest.fixture
def tenant():
    return f"roles-{uuid4()}"


@pytest.fixture
def api(running, tenant):
    with httpx.Client(base_url=running.edge_url, headers=running.headers(tenant=tenant), timeout=60) as client:
        yield client


def begun(api, inputs=60):
    """Returns a job with enough to do that a replica can be ended in the middle."""
    answer = create(api, [entry(f"i{n}", picture()) for n in range(inputs)])
    assert answer.status_code == 202, answer.text
    return answer.json()["job_id"]


def summary(api, job_id):
    return api.get(f"/v1/jobs/{job_id}").json()["result_summary"]


def test_a_killed_worker_is_taken_over(running, api):
    job_id = begun(api)
    with another_replica(running, roles="worker", job_lease_s=2) as first:
        while summary(api, job_id)["succeeded"] == 0:
            time.sleep(0.02)
        first.kill()
    assert api.get(f"/v1/jobs/{job_id}").json()["status"] == "running"
    with another_replica(running, roles="worker", job_lease_s=2) as second:
        assert finished(api, job_id)["result_summary"] == {"items": 60, "succeeded": 60, "failed": 0}
        second.terminate()
        assert second.wait(30) == 0


def test_a_stopping_worker_hands_its_items_back_at_once(running, api):
    job_id = begun(api)
    # With a lease this long only a hand-back lets the second worker finish in time.
    with another_replica(running, roles="worker", job_lease_s=600, drain_s=0) as first:
        while summary(api, job_id)["succeeded"] == 0:
            time.sleep(0.02)
        first.terminate()
        assert first.wait(30) == 0
    with another_replica(running, roles="worker", job_lease_s=600):
        assert finished(api, job_id)["result_summary"]["succeeded"] == 60


def test_an_event_of_a_killed_courier_is_sent_by_another_with_the_same_id(running, api, seen):
    # The first attempt is never answered, the next one is.
    seen.answers["/here"] = [None, (204, {})]
    registered = api.post("/v1/webhooks", json={"url": seen.url("/here")})
    assert registered.status_code == 201, registered.text
    place = f"/v1/webhooks/{registered.json()['webhook_id']}/deliveries"
    with another_replica(running, roles="courier") as first:
        job_id = begun(api, inputs=1)
        assert api.delete(f"/v1/jobs/{job_id}").status_code == 200
        seen.wait("/here", 1)
        first.kill()
        killed = time.monotonic()
    with another_replica(running, roles="courier"):
        lost, sent = seen.wait("/here", 2, within_s=EVENT_LEASE_S + TAKEN_OVER_S)
        assert time.monotonic() - killed < EVENT_LEASE_S + TAKEN_OVER_S
        assert (lost.id, lost.said["job_id"]) == (sent.id, job_id)
        while (told := api.get(place).json()["deliveries"])[0]["status"] == "pending":
            time.sleep(0.05)
        assert [(each["event_id"], each["status"]) for each in told] == [(sent.id, "delivered")]
    assert len(seen.at("/here")) == 2


def let_its_time_be_over(stack: Stack, tenant: str, job_id: str) -> None:
    """Does to a job what the hours of its `ttl_hours` would."""
    with Redis.from_url(json.loads((stack.data_dir / "run" / "stack.json").read_text())["redis_url"]) as redis:
        now_ms = int(time.time() * 1000)
        redis.hset(keys.job(tenant, job_id), "expires_ms", now_ms)
        redis.zadd(keys.job_expiries(), {f"{job_id} {tenant}": now_ms})


def test_what_a_killed_janitor_left_is_swept_by_another(running, api, tenant):
    with another_replica(running, roles="janitor") as first:
        job_id = begun(api, inputs=1)
        first.kill()
        first.wait()
    let_its_time_be_over(running, tenant, job_id)
    with another_replica(running, roles="janitor"):
        assert finished(api, job_id, within_s=TAKEN_OVER_S)["status"] == "expired"
        answer = api.get(f"/v1/jobs/{job_id}/results")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job.results_expired")


def test_a_killed_api_comes_back_and_what_it_accepted_is_done_meanwhile(running, api):
    with another_replica(running, roles="worker"):
        job_id = begun(api)
        os.kill(replica_of(running), signal.SIGKILL)
        assert finished(api, job_id)["result_summary"] == {"items": 60, "succeeded": 60, "failed": 0}
