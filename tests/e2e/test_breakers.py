"""A model that fails, and a state store that is away: what callers, probes and metrics are told, and the way back."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import create, entry, finished, replica_of, valkey_of
from tests.e2e.test_rest import image
from tests.engine.tiny import write_model
from tests.images import star_png

from camserve.v1 import uploads_pb2, uploads_pb2_grpc

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def fault(tmp_path_factory):
    """A file that breaks the model `faulty` as long as it is there."""
    return tmp_path_factory.mktemp("fault") / "broken"


@pytest.fixture(scope="module")
def running(fault, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("stack")
    write_model(data_dir / "models", "faulty", architecture='builder = "tests.engine.tiny:SwitchedNet"')
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TINY_FAULT", str(fault))
        patched.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        stack = start_stack(data_dir, pass_deadline_s=5, replica_count=1)
    yield stack
    stop_stack(stack)


@pytest.fixture
def api(running):
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as client:
        yield client


def infer(api, model, **headers):
    return api.post("/v1/infer", json={"model": model, "image": image()}, headers=headers)


def parts(api):
    answer = api.get("/v1/health").json()
    return answer["status"], {part["name"]: part["healthy"] for part in answer["components"]}


def until_parts(api, status, **expected):
    """Returns once health says so; a second passes before it asks the parts again."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        told, found = parts(api)
        if told == status and expected.items() <= found.items():
            return
    pytest.fail(f"health says {told} {found}")


def circuit(running, name):
    text = httpx.get(f"http://127.0.0.1:{running.metrics_port}/metrics").text
    (line,) = [line for line in text.splitlines() if line.startswith("camserve_circuit_state") and name in line]
    return float(line.rpartition(" ")[2])


def probed(target, service):
    with grpc.insecure_channel(target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def test_a_model_that_fails_is_left_alone_and_comes_back(running, api, fault):
    assert infer(api, "faulty").status_code == 200
    until_parts(api, "serving", engine=True, imaging=True, store=True, objects=True)
    assert circuit(running, 'name="faulty/1"') == 0
    fault.touch()
    answers = [infer(api, "faulty") for _ in range(4)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["internal"] * 3 + ["circuit.open"]
    refused = answers[-1]
    assert (refused.status_code, refused.json()["error"]["type"]) == (503, "service_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert circuit(running, 'name="faulty/1"') in (1, 2)
    until_parts(api, "degraded", engine=False, imaging=True)
    # Nobody else notices, and the replica stays in service.
    assert infer(api, "shapes").status_code == 200
    assert {probed(running.grpc_target, name) for name in ("", "ready", "live")} == {"SERVING"}
    # Work that can wait is taken, and waits.
    later = [create(api, [entry("a"), entry("b")], model="faulty"), infer(api, "faulty", Prefer="respond-async")]
    assert [answer.status_code for answer in later] == [202, 202]
    # By then three pictures more have tried the model, most of them the jobs' own.
    while int(infer(api, "faulty").headers.get("retry-after", 0)) < 4:
        pass
    for answer in later:
        assert api.get(f"/v1/jobs/{answer.json()['job_id']}").json()["status"] in ("queued", "running")
    fault.unlink()
    for answer in later:
        assert finished(api, answer.json()["job_id"])["status"] == "succeeded"
    assert infer(api, "faulty").status_code == 200
    assert circuit(running, 'name="faulty/1"') == 0
    until_parts(api, "serving", engine=True)


def test_a_model_that_hangs_holds_up_no_other_and_comes_back(running, api, fault):
    assert infer(api, "faulty").status_code == 200
    fault.write_text("hang")
    with ThreadPoolExecutor() as threads:
        caught = threads.submit(infer, api, "faulty")
        assert [infer(api, "shapes").status_code for _ in range(5)] == [200] * 5
        assert not caught.done()
    assert caught.result().json()["error"]["code"] == "timeout.exceeded"
    refused = infer(api, "faulty")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "circuit.open")
    assert int(refused.headers["retry-after"]) >= 1
    assert circuit(running, 'name="faulty/1"') == 2
    until_parts(api, "degraded", engine=False, imaging=True)
    assert infer(api, "shapes").status_code == 200
    assert {probed(running.grpc_target, name) for name in ("", "ready", "live")} == {"SERVING"}
    job = create(api, [entry("a"), entry("b")], model="faulty").json()["job_id"]
    fault.unlink()
    assert finished(api, job)["status"] == "succeeded"
    assert infer(api, "faulty").status_code == 200
    assert circuit(running, 'name="faulty/1"') == 0
    until_parts(api, "serving", engine=True)


def test_without_its_state_store_a_replica_answers_and_says_what_is_missing(running, api):
    os.kill(valkey_of(running), signal.SIGSTOP)
    try:
        until_parts(api, "degraded", store=False, engine=True)
        assert infer(api, "shapes").status_code == 200
        assert {probed(running.grpc_target, name) for name in ("", "ready", "live")} == {"SERVING"}
    finally:
        os.kill(valkey_of(running), signal.SIGCONT)
    until_parts(api, "serving", store=True)


def test_a_replica_that_drains_is_alive_and_not_ready(make_stack):
    stack = make_stack(drain_s=20, replica_count=1)
    picture, rest = star_png(), threading.Event()

    def half_sent():
        body = HttpBody(content_type="image/png", data=picture[:-1])
        yield uploads_pb2.UploadImageRequest(size_bytes=len(picture), body=body)
        rest.wait()
        yield uploads_pb2.UploadImageRequest(body=HttpBody(data=picture[-1:]))

    with grpc.insecure_channel(stack.grpc_target) as channel:
        ready = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="ready"))
        assert next(ready).status == health_pb2.HealthCheckResponse.SERVING
        # A call that the drain waits for; it does not wait for whoever watches.
        metadata = (("authorization", f"Bearer {stack.token()}"),)
        upload = uploads_pb2_grpc.UploadServiceStub(channel).UploadImage.future(half_sent(), metadata=metadata)
        while "camserve_calls_running 1.0" not in httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics").text:
            pass
        os.kill(replica_of(stack), signal.SIGTERM)
        assert next(ready).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.RpcError) as ended:
            next(ready)
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert probed(stack.internal_target, "live") == "SERVING"
        assert probed(stack.internal_target, "ready") == "NOT_SERVING"
        rest.set()
        assert upload.result().size_bytes == len(picture)
