"""Idempotency keys over REST, across replicas and without the store."""

from __future__ import annotations

import base64
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import grpc
import httpx
import pytest
from tests.conftest import free_ports
from tests.e2e.test_jobs import entry, valkey_of
from tests.e2e.test_roles import another_replica
from tests.images import encoded, star_png

from camserve.v1 import inference_pb2 as pb
from camserve.v1 import inference_pb2_grpc

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def key():
    return f"key-{uuid4()}"


@pytest.fixture
def api(stack, key):
    headers = stack.headers() | {"idempotency-key": key}
    with httpx.Client(base_url=stack.edge_url, headers=headers, timeout=60) as client:
        yield client


def error_code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def test_json_multipart_and_raw_bodies_are_one_request(api):
    options = {"model": "shapes", "grad_cam": {"enabled": True, "resolution": {"width": 30, "height": 20}}}
    inline = {"image": {"bytes": base64.b64encode(star_png()).decode(), "media_type": "image/png"}}
    described = json.dumps(options)
    answers = [
        api.post("/v1/infer", json=options | inline),
        api.post("/v1/infer", files={"image": ("a.png", star_png()), "request": (None, described)}),
        api.post("/v1/infer", files={"image": ("b.png", star_png()), "request": (None, described)}),
        api.post(
            "/v1/infer",
            params={"request": described},
            content=star_png(),
            headers={"content-type": "image/png"},
        ),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert [answer.headers["idempotency-replayed"] for answer in answers] == ["false", "true", "true", "true"]
    assert len({answer.json()["request_id"] for answer in answers}) == 1
    assert len({answer.headers["request-id"] for answer in answers}) == 4
    assert httpx.get(answers[3].json()["heatmap"]["url"]).status_code == 200


def test_a_202_comes_again_with_its_headers(api):
    first, second = (api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")]}) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    assert (first.headers["idempotency-replayed"], second.headers["idempotency-replayed"]) == ("false", "true")


def test_an_image_that_becomes_a_job_is_one_job(api, key):
    headers = {"prefer": "respond-async", "content-type": "image/png"}
    first, second = (
        api.post("/v1/infer", params={"model": "shapes"}, content=star_png(), headers=headers) for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.json() == first.json()
    assert second.headers["preference-applied"] == "respond-async"


def test_an_error_of_the_image_comes_again_with_its_first_request_id(api):
    broken = star_png()[:-200]
    first, second = (
        api.post("/v1/infer", params={"model": "shapes"}, content=broken, headers={"content-type": "image/png"})
        for _ in range(2)
    )
    assert error_code(first) == error_code(second) == (422, "image.decoding_failed")
    assert second.json() == first.json()
    assert second.headers["request-id"] != first.headers["request-id"] == first.json()["error"]["request_id"]
    assert (first.headers["idempotency-replayed"], second.headers["idempotency-replayed"]) == ("false", "true")


@pytest.mark.parametrize("bad", [b"", b"a b", "schlüssel".encode(), b"x" * 256])
def test_a_malformed_key_is_refused_and_never_dropped(api, bad):
    answer = api.post("/v1/jobs", json={"model": "shapes", "inputs": [entry("a")]}, headers=[(b"idempotency-key", bad)])
    assert error_code(answer) == (400, "idempotency.key_invalid")


def test_a_key_means_nothing_to_a_get_and_a_batch_refuses_it(api):
    listed = api.get("/v1/models")
    assert listed.status_code == 200
    assert "idempotency-replayed" not in listed.headers
    batch = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": [entry("a")]})
    assert error_code(batch) == (400, "idempotency.key_invalid")


def test_duplicates_at_once_are_told_to_come_again(api):
    data = encoded(5000, 4000, "JPEG", quality=50)

    def post(_):
        return api.post("/v1/infer", params={"model": "shapes"}, content=data, headers={"content-type": "image/jpeg"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(post, range(8)))
    good = [answer for answer in answers if answer.status_code == 200]
    assert len({answer.json()["request_id"] for answer in good}) == 1
    assert [answer.headers["idempotency-replayed"] for answer in good].count("false") == 1
    for answer in answers:
        if answer.status_code != 200:
            assert error_code(answer) == (409, "idempotency.in_progress")
            assert int(answer.headers["retry-after"]) >= 1


def test_replicas_share_the_keys_and_without_the_store_nothing_runs(make_stack, key):
    running = make_stack(torch_threads=1)
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        first = api.post("/v1/infer", json=star_request(), headers={"idempotency-key": key})
        assert first.headers["idempotency-replayed"] == "false"
        (port,) = free_ports(1)
        with another_replica(running, grpc_port=port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("authorization", f"Bearer {running.token()}"), ("idempotency-key", key))
            request = pb.InferRequest(model="shapes", image=pb.ImageInput(bytes=star_png()))
            answer, call = inference_pb2_grpc.InferenceServiceStub(channel).Infer.with_call(request, metadata=metadata)
            assert answer.request_id == first.json()["request_id"]
            assert dict(call.initial_metadata())["idempotency-replayed"] == "true"
        os.kill(valkey_of(running), signal.SIGSTOP)
        try:
            refused = api.post("/v1/infer", json=star_request(), headers={"idempotency-key": key})
            assert error_code(refused) == (503, "store.unavailable")
            assert api.post("/v1/infer", json=star_request()).status_code == 200
        finally:
            os.kill(valkey_of(running), signal.SIGCONT)
        again = api.post("/v1/infer", json=star_request(), headers={"idempotency-key": key})
        assert again.json() == first.json()


def star_request():
    return {"model": "shapes", "image": {"bytes": base64.b64encode(star_png()).decode()}}
