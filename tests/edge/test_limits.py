"""How much, how long, and what happens past it."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from tests.edge.conftest import JSON_LIMIT_BYTES, UPLOAD_LIMIT_BYTES, Edge
from tests.edge.replica import Call
from tests.edge.wire import check_error, exchange

from camserve.v1 import inference_pb2, inference_pb2_grpc
from camserve_server.base.errors import Reason
from camserve_server.edge.descriptors import methods
from camserve_server.edge.routes import routes

JSON = {"content-type": "application/json"}
IMAGE = {"content-type": "image/png"}


def test_a_json_body_has_a_limit(edge: Edge, caller: httpx.Client) -> None:
    frame = len('{"model":""}')
    fits = b'{"model":"' + b"m" * (JSON_LIMIT_BYTES - frame) + b'"}'
    assert caller.post("/v1/infer", content=fits, headers=JSON).status_code == 200
    for body in (fits + b" ", iter([fits, b" "])):
        check_error(caller.post("/v1/infer", content=body, headers=JSON), Reason.BODY_TOO_LARGE)


def test_an_upload_has_a_limit_of_its_own(edge: Edge, caller: httpx.Client) -> None:
    fits = b"x" * UPLOAD_LIMIT_BYTES
    assert caller.post("/v1/infer", content=fits, headers=IMAGE).status_code == 200
    for body in (fits + b"x", iter([fits, b"x"])):
        check_error(caller.post("/v1/infer", content=body, headers=IMAGE), Reason.BODY_TOO_LARGE)


def test_the_limits_hold_for_native_callers(edge: Edge) -> None:
    metadata = (("authorization", f"Bearer {edge.token()}"),)
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Infer(inference_pb2.InferRequest(model="m" * JSON_LIMIT_BYTES), metadata=metadata)
        parts = [inference_pb2.InferUploadRequest(model="m" * JSON_LIMIT_BYTES)] * 2
        stub.InferUpload(iter(parts), metadata=metadata)
    assert (refused.value.code(), refused.value.details()) == (
        grpc.StatusCode.OUT_OF_RANGE,
        "The request body is larger than the limit.",
    )


def test_an_answer_past_the_limit_is_an_internal_error(edge: Edge, caller: httpx.Client) -> None:
    edge.replica.answer = lambda call: iter([inference_pb2.InferResponse(model="m" * edge.settings.max_response_bytes)])
    check_error(caller.post("/v1/infer", content=b"{}", headers=JSON), Reason.INTERNAL)


def test_a_call_past_its_time_budget_is_504_and_given_up_at_the_replica(edge: Edge, caller: httpx.Client) -> None:
    given_up = threading.Event()

    def answer(call: Call) -> Iterator[Message]:
        call.context.add_callback(given_up.set)
        assert given_up.wait(20)
        yield from ()

    edge.replica.answer = answer
    check_error(caller.post("/v1/infer", content=b"{}", headers=JSON), Reason.TIMEOUT_EXCEEDED)
    assert given_up.wait(20)


def test_an_upload_that_stalls_is_504(edge: Edge) -> None:
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.token()}\r\n"
    request = f"{head}content-type: image/png\r\ncontent-length: 100\r\n\r\nstart".encode()
    check_error(exchange(edge.port, request), Reason.TIMEOUT_EXCEEDED)
    # Else the replica might hear of the call only in the middle of another test.
    while not edge.replica.received:
        time.sleep(0.01)


def test_a_client_that_leaves_ends_the_call_at_the_replica(edge: Edge, caller: httpx.Client) -> None:
    given_up = threading.Event()

    def answer(call: Call) -> Iterator[Message]:
        call.context.add_callback(given_up.set)
        yield inference_pb2.BatchEvent(event=inference_pb2.StreamEvent.heartbeat)
        assert given_up.wait(20)

    edge.replica.answer = answer
    with caller.stream("POST", "/v1/infer:batch", content=b"{}", headers=JSON) as response:
        next(response.iter_lines())
    assert given_up.wait(20)


def test_a_refusal_is_not_retried(edge: Edge, caller: httpx.Client) -> None:
    # Asking an overloaded replica again would overload it more.
    def answer(call: Call) -> Iterator[Message]:
        call.context.abort(grpc.StatusCode.UNAVAILABLE, "")
        yield from ()

    edge.replica.answer = answer
    check_error(caller.post("/v1/infer", content=b"{}", headers=JSON), Reason.SERVICE_OVERLOADED)
    check_error(caller.get("/v1/models"), Reason.SERVICE_OVERLOADED)
    assert len(edge.replica.received) == 2


def test_without_a_healthy_replica_callers_are_told_at_once(edge: Edge, caller: httpx.Client) -> None:
    edge.replica.set_serving(False)
    try:
        while (response := caller.get("/v1/models")).status_code == 200:
            pass
        check_error(response, Reason.SERVICE_OVERLOADED)
    finally:
        edge.replica.set_serving(True)
    while caller.get("/v1/models").status_code != 200:
        pass


def test_every_route_has_the_time_budget_of_its_kind(edge: Edge) -> None:
    settings = dataclasses.replace(edge.settings, sync_timeout_s=7, default_timeout_s=5, timeout_grace_s=1)
    kinds = {method.label: method for method in methods()}
    seen = set()
    for route in routes(kinds.values(), settings):
        method = kinds.get(route["name"])
        if method is None:
            continue
        has_body = any(binding.has_body for binding in method.bindings)
        waits_for_an_image = has_body and not method.public
        budget = "0s" if method.server_streaming else "8.000s" if waits_for_an_image else "6.000s"
        assert route["route"]["timeout"] == budget, method.label
        assert route["route"]["idle_timeout"] == "2.500s"
        seen.add(budget)
    assert len(seen) == 3
