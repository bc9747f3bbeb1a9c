"""The object store full, failing and slow: what callers hear meanwhile, and that nothing of it stays."""

from __future__ import annotations

import base64
import os
import sys
import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_breakers import until_parts
from tests.e2e.test_jobs import create, entry, finished
from tests.faults.proxy import fault_proxy
from tests.images import star_png
from tests.s3_server import S3Server, s3_server

pytestmark = pytest.mark.timeout(180)
# A breaker's pause may have grown to 8 s while the fault lasted.
RECOVERED_WITHIN_S = 20.0
TIME_LIMIT_S = 4
BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A file that fills the disk of the objects as long as it is there."""
    return tmp_path_factory.mktemp("disk") / "full"


@pytest.fixture(scope="module")
def on_disk(full, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patched:
        places = [str(Path(__file__).parents[1] / "faults" / "full_disk"), os.environ.get("PYTHONPATH")]
        patched.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
        patched.setenv("FULL_DISK_WHEN", str(full))
        patched.setenv("FULL_DISK", str(data_dir / "objects"))
        stack = start_stack(data_dir)
    yield stack
    stop_stack(stack)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(scope="module")
def way(bucket):
    """The address that the server knows the bucket by."""
    with fault_proxy("127.0.0.1", int(bucket.url.rpartition(":")[2])) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def in_bucket(way, tmp_path_factory):
    own = S3Server(f"http://127.0.0.1:{way.port}").environment("faults")
    stack = start_stack(tmp_path_factory.mktemp("stack"), sync_timeout_s=TIME_LIMIT_S, **own)
    yield stack
    stop_stack(stack)


def client(stack):
    return httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=30)


def infer(api, *, linked=False, key=None):
    headers = {"idempotency-key": key} if key else {}
    body = {"model": "shapes", "image": {"bytes": base64.b64encode(star_png()).decode()}}
    return api.post("/v1/infer", json=body | ({"grad_cam": {"enabled": True}} if linked else {}), headers=headers)


def upload(api):
    return api.post("/v1/uploads", content=star_png(), headers={"content-type": "image/png"})


def check_refused(answer, *more):
    assert answer.status_code in (502, 503, *more), answer.text
    assert answer.json()["error"]["code"] in ("upstream.failed", "circuit.open", "timeout.exceeded")
    assert int(answer.headers["retry-after"]) >= 1


def check_nothing_stored(api, *more, rounds=3):
    """What needs no object is answered, and what needs one is refused with the time after which to come again."""
    for _ in range(rounds):
        assert infer(api, key=str(uuid4())).status_code == 200
        check_refused(infer(api, linked=True), *more)
        check_refused(create(api, [entry("a")]), *more)
        check_refused(upload(api), *more)
    until_parts(api, "degraded", objects=False, store=True)


def check_back(api, key):
    deadline = time.monotonic() + RECOVERED_WITHIN_S
    while (answer := infer(api, linked=True, key=key)).status_code != 200:
        check_refused(answer)
        assert time.monotonic() < deadline
    assert httpx.get(answer.json()["heatmap"]["url"]).status_code == 200
    made = create(api, [entry("a")])
    assert finished(api, made.json()["job_id"])["result_summary"]["succeeded"] == 1
    assert upload(api).status_code == 201
    until_parts(api, "serving", objects=True)


@pytest.mark.skipif(sys.platform != "linux", reason="a descriptor's path is looked up in /proc")
def test_a_full_disk_refuses_what_would_be_stored_and_is_used_again_once_it_has_room(on_disk, full):
    key = str(uuid4())
    with client(on_disk) as api:
        kept = upload(api).json()["storage_id"]
        full.touch()
        try:
            check_refused(infer(api, linked=True, key=key))
            check_nothing_stored(api)
            # What lies there is still read.
            body = {"model": "shapes", "image": {"storage_id": kept}}
            assert api.post("/v1/infer", json=body).status_code == 200
            # What could not be written left nothing behind.
            assert list((on_disk.data_dir / "objects" / "drafts").iterdir()) == []
        finally:
            full.unlink()
        check_back(api, key)


@pytest.mark.parametrize("fault", ["errors", "broken connections", "silence"])
def test_a_bucket_that_fails_costs_only_what_needs_it_and_is_used_again_by_itself(in_bucket, way, fault):
    key = str(uuid4())
    with client(in_bucket) as api:
        assert infer(api, linked=True).status_code == 200
        silent = fault == "silence"
        way.answer = BUSY if fault == "errors" else None
        way.closed = fault == "broken connections"
        way.delay_s = 600 if silent else 0
        try:
            check_refused(infer(api, linked=True, key=key), 504)
            # Each call that nothing answers takes its whole time.
            check_nothing_stored(api, 504, rounds=1) if silent else check_nothing_stored(api)
        finally:
            way.answer, way.closed, way.delay_s = None, False, 0
            way.cut()
        check_back(api, key)


def test_a_slow_bucket_makes_calls_slow_and_breaks_none(in_bucket, way):
    with client(in_bucket) as api:
        way.delay_s = 0.5
        try:
            assert infer(api, linked=True, key=str(uuid4())).status_code == 200
            assert create(api, [entry("a")]).status_code == 202
        finally:
            way.delay_s = 0
        check_back(api, str(uuid4()))
