"""What headers a client may say, and how many."""

from __future__ import annotations

import httpx
import pytest
from tests.conftest import Stack
from tests.edge.conftest import Edge
from tests.edge.wire import check_error, exchange

from camserve_server.base.errors import Reason

SPOOFED = [
    "x-envoy-original-path",
    "x-envoy-original-method",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-retry-on",
    "x-http-status",
    "x-http-code",
    "x-error-json",
    "x-tenant",
    "x-tenant-id",
    "x-jwt-sub",
    "x-jwt-tenant",
    "x-camserve-content-length",
    "x-camserve-anything",
    "x-content-length",
    "grpc-previous-rpc-attempts",
    "cookie",
]


@pytest.mark.parametrize("name", SPOOFED)
def test_what_only_the_edge_may_say_never_reaches_the_replica(edge: Edge, caller: httpx.Client, name: str) -> None:
    assert caller.get("/v1/models", headers={name: "spoofed"}).status_code == 200
    assert "spoofed" not in edge.replica.received[0].metadata.values()


def test_a_native_caller_cannot_pass_for_a_rest_one(edge: Edge, caller: httpx.Client) -> None:
    caller.post(
        "/camserve.v1.ModelService/ListModels",
        content=b"\0\0\0\0\0",
        headers={"content-type": "application/grpc", "te": "trailers", "x-envoy-original-path": "/v1/models"},
    )
    assert "x-envoy-original-path" not in edge.replica.received[0].metadata


def test_the_request_id_is_ours(edge: Edge, caller: httpx.Client) -> None:
    response = caller.get("/v1/models", headers={"x-request-id": "mine"})
    assert response.headers["request-id"] == edge.replica.received[0].metadata["x-request-id"] != "mine"


def test_the_declared_length_of_an_upload_reaches_the_replica(edge: Edge, caller: httpx.Client) -> None:
    headers = {"content-type": "image/png"}
    caller.post("/v1/infer", content=b"12345", headers=headers)
    caller.post("/v1/infer", content=iter([b"12345"]), headers=headers)
    declared = [call.metadata.get("x-camserve-content-length") for call in edge.replica.received]
    assert declared == ["5", None]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nx_tenant: y\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\na: " + b"y" * 40_000 + b"\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\n" + b"".join(b"a%d: y\r\n" % n for n in range(150)),
        b"GET /v1/health?" + b"y" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n",
        b"GET /v1/health HTTP/1.1\r\n",
        b"GET /v1/health HTTP/1.0\r\n",
        b"SECRET\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nsecret\r\n",
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n",
        b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: secret\r\n",
        b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n",
    ],
    ids=lambda head: head[:60].decode().replace("\r\n", " "),
)
def test_a_malformed_head_is_refused_with_an_id(edge: Edge, head: bytes) -> None:
    check_error(exchange(edge.port, head + b"\r\n"), Reason.PARAM_INVALID)
    assert not edge.replica.received


def test_a_header_of_28_kb_reaches_the_real_server(stack: Stack) -> None:
    # grpcio's own default refuses more than 8 KiB at random.
    for _ in range(3):
        headers = stack.headers() | {"x-long": "y" * 28_000}
        assert httpx.get(f"{stack.edge_url}/v1/models", headers=headers).status_code == 200


def test_envoy_says_nothing_of_itself(caller: httpx.Client) -> None:
    response = caller.get("/v1/models")
    assert response.headers["server"] == "camserve"
    assert not [name for name in response.headers if name.startswith(("x-envoy", "grpc-", "x-http"))]
