"""A Redis Cluster of three primaries, each with a replica, as the store; one of them dies."""

from __future__ import annotations

import base64
import time
from uuid import uuid4

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.receiver import receiver
from tests.e2e.test_jobs import create, entry, finished
from tests.faults.cluster import cluster
from tests.images import star_png

from camserve_server.stores import keys
from camserve_server.stores.cluster import slot_of

pytestmark = pytest.mark.timeout(240)
TENANTS = [f"tenant-{number}" for number in range(6)]
RECOVERED_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), replicated=True) as running:
        yield running


@pytest.fixture(scope="module")
def seen():
    with receiver() as running:
        yield running


@pytest.fixture(scope="module")
def running(nodes, seen, tmp_path_factory):
    stack = start_stack(tmp_path_factory.mktemp("stack"), redis_url=nodes.url, job_lease_s=3, webhook_allow=seen.place)
    yield stack
    stop_stack(stack)


def api(stack, tenant):
    return httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant=tenant), timeout=30)


def infer(client, key):
    image = {"bytes": base64.b64encode(star_png()).decode()}
    return client.post("/v1/infer", json={"model": "shapes", "image": image}, headers={"idempotency-key": key})


def test_everything_that_has_state_works_on_a_cluster(running, seen):
    for tenant in TENANTS:
        with api(running, tenant) as client:
            key = str(uuid4())
            first, second = infer(client, key), infer(client, key)
            assert (first.status_code, second.status_code) == (200, 200)
            assert second.headers["idempotency-replayed"] == "true"
            assert client.post("/v1/webhooks", json={"url": seen.url(f"/{tenant}")}).status_code == 201
            stored = client.post("/v1/uploads", content=star_png(), headers={"content-type": "image/png"}).json()
            inputs = [entry("a"), {"id": "b", "image": {"storage_id": stored["storage_id"]}}]
            job_id = create(client, inputs).json()["job_id"]
            assert finished(client, job_id)["result_summary"] == {"items": 2, "succeeded": 2, "failed": 0}
            assert job_id in [job["job_id"] for job in client.get("/v1/jobs").json()["jobs"]]
            told = running.camserve("tenants", "set", tenant, "--images-per-day", "50")
            assert told.returncode == 0, told.stderr
            while client.get("/v1/limits").json()["images_per_day"]["limit"] != 50:
                time.sleep(0.1)
    for tenant in TENANTS:
        seen.wait(f"/{tenant}", 1)


def test_a_primary_that_dies_is_followed_by_its_replica_and_its_jobs_are_there(running, nodes):
    # The one that has the ring, without which no job goes on.
    slot = slot_of(("GET", keys.ring()))
    victim = next(node for node in nodes.primaries if node.ask("CLUSTER", "COUNTKEYSINSLOT", slot))
    made = {}
    for tenant in TENANTS:
        with api(running, tenant) as client:
            made[tenant] = create(client, [entry("a")]).json()["job_id"]
            finished(client, made[tenant])
    # What a replica has not got yet would be lost with its primary.
    for primary, replica in zip(nodes.primaries, nodes.replicas, strict=True):
        replica.wait_for(primary)
    victim.kill()
    for tenant in TENANTS:
        with api(running, tenant) as client:
            check_taken_over(client, made[tenant])


def check_taken_over(client, job_id):
    """A store that is away is told of until another server has taken over; nothing that it had then is missing."""
    deadline = time.monotonic() + RECOVERED_WITHIN_S
    while (answer := infer(client, str(uuid4()))).status_code != 200:
        assert answer.json()["error"]["code"] == "store.unavailable", answer.text
        assert time.monotonic() < deadline
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"
    while (answer := create(client, [entry("a")])).status_code != 202:
        assert answer.json()["error"]["code"] == "store.unavailable", answer.text
        assert time.monotonic() < deadline
    assert finished(client, answer.json()["job_id"])["result_summary"]["succeeded"] == 1
