"""Valkey away, full, slow and failing over: what callers hear meanwhile, and that nothing of it stays."""

from __future__ import annotations

import base64
import signal
import time
from uuid import uuid4

import httpx
import psutil
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_breakers import until_parts
from tests.e2e.test_jobs import create, entry, finished, replica_of
from tests.faults.proxy import fault_proxy
from tests.faults.valkey import valkey
from tests.images import star_png

pytestmark = pytest.mark.timeout(180)
# A question to the store may take 2 s, and is asked once more on another connection where one broke.
ANSWER_WITHIN_S = 10.0
RECOVERED_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with valkey(tmp_path_factory.mktemp("valkey") / "a") as running:
        yield running


@pytest.fixture(scope="module")
def way(store):
    """The address that the replica knows the store by."""
    with fault_proxy("127.0.0.1", store.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def running(way, tmp_path_factory):
    stack = start_stack(tmp_path_factory.mktemp("stack"), redis_url=f"redis://127.0.0.1:{way.port}", job_lease_s=3)
    yield stack
    stop_stack(stack)


@pytest.fixture
def api(running):
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=ANSWER_WITHIN_S) as client:
        yield client


def infer(api, key=None):
    headers = {"idempotency-key": key} if key else {}
    image = {"bytes": base64.b64encode(star_png()).decode()}
    return api.post("/v1/infer", json={"model": "shapes", "image": image}, headers=headers)


def check_refused(answer):
    assert answer.status_code == 503, answer.text
    assert answer.json()["error"]["code"] == "store.unavailable"
    assert answer.headers["retry-after"] == "1"


def check_away(api):
    """Whatever needs the store is refused; what does not is answered, however long it lasts."""
    for _ in range(3):
        assert infer(api).status_code == 200
    check_refused(infer(api, str(uuid4())))
    check_refused(create(api, [entry("a")]))


def check_back(api):
    """Everything works again, without a hand."""
    deadline = time.monotonic() + RECOVERED_WITHIN_S
    while (answer := infer(api, str(uuid4()))).status_code != 200:
        check_refused(answer)
        assert time.monotonic() < deadline
    made = create(api, [entry("a")])
    assert made.status_code == 202
    assert finished(api, made.json()["job_id"])["result_summary"]["succeeded"] == 1
    until_parts(api, "serving", store=True)


def test_a_store_that_stands_still_costs_only_what_needs_it_and_little_memory(running, store, api):
    job_id = create(api, [entry(f"i{n}") for n in range(4)]).json()["job_id"]
    replica = psutil.Process(replica_of(running))
    before = replica.memory_info().rss
    store.signal(signal.SIGSTOP)
    try:
        check_away(api)
        check_refused(api.get(f"/v1/jobs/{job_id}"))
        until_parts(api, "degraded", store=False)
        assert replica.memory_info().rss - before < 100e6
    finally:
        store.signal(signal.SIGCONT)
    check_back(api)
    assert finished(api, job_id)["result_summary"] == {"items": 4, "succeeded": 4, "failed": 0}


def test_a_store_that_is_killed_forgets_nothing_that_was_acknowledged(store, api):
    key = str(uuid4())
    first = infer(api, key)
    job_id = create(api, [entry(f"i{n}") for n in range(4)]).json()["job_id"]
    store.kill()
    check_away(api)
    store.start()
    check_back(api)
    assert infer(api, key).json() == first.json()
    assert finished(api, job_id)["result_summary"] == {"items": 4, "succeeded": 4, "failed": 0}


def test_a_full_store_still_reads_and_takes_everything_once_it_is_larger(store, api):
    key = str(uuid4())
    first = infer(api, key)
    job_id = create(api, [entry(f"i{n}") for n in range(8)]).json()["job_id"]
    store.fill()
    try:
        check_away(api)
        # Of what is there already nothing is lost, and it may be read.
        assert infer(api, key).json() == first.json()
        assert api.get(f"/v1/jobs/{job_id}").status_code == 200
        assert api.get("/v1/jobs").status_code == 200
        until_parts(api, "degraded", store=False)
    finally:
        store.enlarge()
    check_back(api)
    assert finished(api, job_id)["result_summary"] == {"items": 8, "succeeded": 8, "failed": 0}


@pytest.mark.parametrize(("delay_s", "answers"), [(0.3, True), (3.0, False)], ids=["late", "too late"])
def test_a_slow_store_makes_calls_slow_or_refused_and_never_hangs_them(way, api, delay_s, answers):
    way.delay_s = delay_s
    try:
        if answers:
            assert infer(api, str(uuid4())).status_code == 200
            assert create(api, [entry("a")]).status_code == 202
        else:
            check_away(api)
        assert infer(api).status_code == 200
    finally:
        way.delay_s = 0
        # What is still on its way would come late for a while, as it does from a server that was slow.
        way.cut()
    check_back(api)


def test_a_planned_failover_loses_nothing_and_needs_no_restart(store, way, api, tmp_path):
    key = str(uuid4())
    first = infer(api, key)
    job_id = create(api, [entry(f"i{n}") for n in range(8)]).json()["job_id"]
    with valkey(tmp_path / "b") as other:
        other.follow(store)
        other.take_over(store)
        # Its address still leads to the old one, which takes no writes.
        check_away(api)
        way.target = ("127.0.0.1", other.port)
        check_back(api)
        assert infer(api, key).json() == first.json()
        assert finished(api, job_id)["result_summary"] == {"items": 8, "succeeded": 8, "failed": 0}
        store.follow(other)
        store.take_over(other)
        way.target = ("127.0.0.1", store.port)
        check_back(api)


def test_a_failover_after_the_primary_was_killed_needs_no_restart(store, way, api, tmp_path):
    with valkey(tmp_path / "b") as other:
        other.follow(store)
        store.kill()
        check_away(api)
        other.ask("REPLICAOF", "NO", "ONE")
        way.target = ("127.0.0.1", other.port)
        check_back(api)
        store.start()
        store.follow(other)
        store.take_over(other)
        way.target = ("127.0.0.1", store.port)
        check_back(api)
