"""Every error looks the same, whoever makes it."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from tests.conftest import Stack
from tests.edge.conftest import Edge
from tests.edge.replica import Call
from tests.edge.wire import check_error, exchange

from camserve.v1 import inference_pb2, models_pb2_grpc
from camserve.v1.models_pb2 import ListModelsRequest
from camserve_server.base.errors import CATALOGUE, Reason

JSON = {"content-type": "application/json"}
# What a replica may end a call with; a status of the log only and 415's like are made elsewhere too.
FROM_A_REPLICA = [reason for reason in Reason if reason is not Reason.CLIENT_CLOSED]


@pytest.mark.parametrize("late", [False, True], ids=["trailers-only", "after-headers"])
@pytest.mark.parametrize("reason", FROM_A_REPLICA)
def test_a_replicas_error_arrives_with_its_status_and_body(
    edge: Edge, caller: httpx.Client, reason: Reason, late: bool
) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.fail(reason, late=late)
        yield from ()

    edge.replica.answer = answer
    response = caller.post("/v1/infer", content=b"{}", headers=JSON)
    entry = CATALOGUE[reason]
    error = response.json()["error"]
    assert response.status_code == error["status"] == entry.status
    assert error["code"] == reason.value
    assert error["request_id"] == response.headers["request-id"]
    assert response.headers["content-type"] == "application/json"
    assert response.headers.get("retry-after") == (str(entry.retry_after_s) if entry.retry_after_s else None)
    assert not [name for name in response.headers if name.startswith(("x-http", "x-error", "grpc-"))]


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        (grpc.StatusCode.CANCELLED, "secret", Reason.SERVICE_DRAINING),
        (grpc.StatusCode.UNKNOWN, "secret", Reason.INTERNAL),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "secret", Reason.TIMEOUT_EXCEEDED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Received message larger than max", Reason.BODY_TOO_LARGE),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "received metadata size exceeds hard limit", Reason.PARAM_INVALID),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "secret", Reason.SERVICE_OVERLOADED),
        (grpc.StatusCode.UNIMPLEMENTED, "secret", Reason.ROUTE_NOT_FOUND),
        (grpc.StatusCode.INTERNAL, "secret", Reason.INTERNAL),
        (grpc.StatusCode.UNAVAILABLE, "secret", Reason.SERVICE_OVERLOADED),
        (grpc.StatusCode.DATA_LOSS, "secret", Reason.INTERNAL),
        (grpc.StatusCode.UNAUTHENTICATED, "secret", Reason.AUTH_INVALID_TOKEN),
    ],
)
def test_what_grpc_core_refuses_is_put_in_our_words(
    edge: Edge, caller: httpx.Client, code: grpc.StatusCode, message: str, reason: Reason
) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.context.abort(code, message)
        yield from ()

    edge.replica.answer = answer
    check_error(caller.post("/v1/infer", content=b"{}", headers=JSON), reason)


@pytest.mark.parametrize(
    "body",
    [
        b'{"secret"',
        b'["secret"]',
        b'"secret"',
        b'{"model": 5}',
        b'{"grad_cam": {"alpha": "secret"}}',
        b'{"image": {"bytes": "***secret***"}}',
        b'{"grad_cam": {"resolution": ' + b"[" * 5000 + b"]" * 5000 + b"}}",
    ],
    ids=["cut", "array", "string", "type", "number", "base64", "deep"],
)
def test_a_body_that_is_not_the_requests_json_is_400_and_not_echoed(caller: httpx.Client, body: bytes) -> None:
    check_error(caller.post("/v1/infer", content=body, headers=JSON), Reason.JSON_MALFORMED)


@pytest.mark.parametrize("depth", [60, 95])
def test_json_deeper_than_protobuf_reads_is_400(stack: Stack, depth: int) -> None:
    body = '{"model": "shapes", "grad_cam": {"resolution": ' + "[" * depth + "]" * depth + "}}"
    response = httpx.post(f"{stack.edge_url}/v1/infer", content=body, headers=stack.headers() | JSON)
    check_error(response, Reason.JSON_MALFORMED)


@pytest.mark.parametrize("code", ["201", "202", "206"])
def test_a_replica_chooses_the_success_status(edge: Edge, caller: httpx.Client, code: str) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.context.send_initial_metadata((("x-http-code", code), ("location", "/v1/jobs/x")))
        yield inference_pb2.InferResponse(model="m")

    edge.replica.answer = answer
    response = caller.post("/v1/infer", content=b"{}", headers=JSON)
    assert (response.status_code, response.headers["location"]) == (int(code), "/v1/jobs/x")
    assert response.json()["model"] == "m"


def test_204_has_no_body(edge: Edge) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.context.send_initial_metadata((("x-http-code", "204"),))
        yield inference_pb2.InferResponse()

    edge.replica.answer = answer
    request = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.token()}\r\nconnection: close\r\n\r\n"
    response = exchange(edge.port, request.encode(), until_close=True)
    assert (response.status, response.body) == (204, b"")
    assert not {"content-length", "content-type", "transfer-encoding"} & set(response.headers)


def test_defaults_are_printed_and_names_are_snake_case(edge: Edge, caller: httpx.Client) -> None:
    answer = caller.post("/v1/infer", content=b"{}", headers=JSON).json()
    assert answer == {
        "request_id": "",
        "model": "",
        "model_version": "",
        "labels_version": "",
        "calibration_version": "",
        "classes": [],
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/models", 405), ("/unknown", 404), ("/v1/objects/obj_0123456789abcdefghij?object_id=x", 400)],
)
def test_a_head_request_gets_headers_only_when_the_edge_refuses(edge: Edge, path: str, status: int) -> None:
    request = f"HEAD {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.token()}\r\nconnection: close\r\n\r\n"
    response = exchange(edge.port, request.encode(), until_close=True)
    assert (response.status, response.body) == (status, b"")
    assert response.headers["request-id"]


@pytest.mark.parametrize("late", [False, True], ids=["trailers-only", "after-headers"])
def test_a_head_request_gets_headers_only_when_the_replica_refuses(edge: Edge, late: bool) -> None:
    # A body here would be read as the beginning of the next response on the connection.
    def answer(call: Call) -> Iterator[Message]:
        call.fail(Reason.SIGNATURE_INVALID, late=late)
        yield from ()

    edge.replica.answer = answer
    request = b"HEAD /v1/objects/obj_0123456789abcdefghij HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    response = exchange(edge.port, request, until_close=True)
    assert response.body == b""
    assert late or response.status == 403


def test_a_native_caller_gets_code_and_message(edge: Edge) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ListModels(ListModelsRequest())
        unknown = channel.unary_unary("/camserve.v1.ModelService/Unknown")
        with pytest.raises(grpc.RpcError) as missing:
            unknown(b"", metadata=(("authorization", f"Bearer {edge.token()}"),))
    error = refused.value
    assert (error.code(), error.details()) == (grpc.StatusCode.UNAUTHENTICATED, "A bearer token is required.")
    assert dict(error.trailing_metadata())["request-id"]
    assert missing.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert missing.value.details() == "There is no such route."


def test_a_native_callers_error_is_passed_on_untouched(edge: Edge) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.context.set_trailing_metadata((("grpc-status-details-bin", b"details"), ("request-id", "x")))
        call.context.abort(grpc.StatusCode.FAILED_PRECONDITION, "words")
        yield from ()

    edge.replica.answer = answer
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            models_pb2_grpc.ModelServiceStub(channel).ListModels(
                ListModelsRequest(), metadata=(("authorization", f"Bearer {edge.token()}"),)
            )
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "words")
    assert dict(refused.value.trailing_metadata())["grpc-status-details-bin"] == b"details"


def test_grpc_web_is_answered_in_its_own_form(edge: Edge, caller: httpx.Client, stranger: httpx.Client) -> None:
    options = {"content": b"\0\0\0\0\0", "headers": {"content-type": "application/grpc-web+proto"}}
    answer = caller.post("/camserve.v1.ModelService/ListModels", **options)  # type: ignore[arg-type]
    assert answer.status_code == 200
    assert b"grpc-status:0" in answer.content
    refused = stranger.post("/camserve.v1.ModelService/ListModels", **options)  # type: ignore[arg-type]
    assert refused.headers["grpc-status"] == "16"
    assert refused.headers["grpc-message"] == "A bearer token is required."
