"""Answers that come in pieces, and what a failure between two of them looks like."""

from __future__ import annotations

import json
from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from google.protobuf.message import Message
from tests.conftest import Stack
from tests.edge.conftest import Edge
from tests.edge.replica import Call
from tests.edge.wire import check_error, exchange

from camserve.v1 import inference_pb2
from camserve_server.base.errors import Reason

OBJECT = "/v1/objects/obj_0123456789abcdefghij?token=t"
MIB = 1 << 20


def _object(call: Call, size: int, sent: int) -> Iterator[Message]:
    call.context.send_initial_metadata(
        (("x-content-length", str(size)), ("etag", '"e"'), ("x-content-type-options", "nosniff"))
    )
    if call.metadata.get("x-envoy-original-method") == "HEAD":
        yield httpbody_pb2.HttpBody(content_type="image/png")
        return
    for start in range(0, sent, MIB):
        yield httpbody_pb2.HttpBody(content_type="image/png", data=b"x" * min(MIB, sent - start))
    if sent < size:
        call.context.abort(grpc.StatusCode.INTERNAL, "the disk is gone")


@pytest.mark.parametrize("size", [0, 1000, 3 * MIB])
def test_a_download_has_its_length_and_type(edge: Edge, stranger: httpx.Client, size: int) -> None:
    edge.replica.answer = lambda call: _object(call, size, size)
    response = stranger.get(OBJECT)
    assert response.status_code == 200
    assert response.headers["content-length"] == str(size) == str(len(response.content))
    assert response.headers["content-type"] == ("image/png" if size else response.headers["content-type"])
    assert (response.headers["etag"], response.headers["x-content-type-options"]) == ('"e"', "nosniff")


def test_head_of_a_download_has_the_length_and_no_body(edge: Edge) -> None:
    edge.replica.answer = lambda call: _object(call, 3 * MIB, 3 * MIB)
    request = f"HEAD {OBJECT} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
    response = exchange(edge.port, request, until_close=True)
    assert (response.status, response.body) == (200, b"")
    assert (response.headers["content-length"], response.headers["content-type"]) == (str(3 * MIB), "image/png")


def test_a_download_that_breaks_off_is_an_error_for_the_client(edge: Edge, stranger: httpx.Client) -> None:
    edge.replica.answer = lambda call: _object(call, 3 * MIB, MIB)
    with pytest.raises(httpx.RemoteProtocolError):
        stranger.get(OBJECT)


def test_a_range_that_breaks_off_is_an_error_for_the_client(edge: Edge, stranger: httpx.Client) -> None:
    def answer(call: Call) -> Iterator[Message]:
        headers = (("x-content-length", "1000"), ("x-http-code", "206"), ("content-range", "bytes 0-999/5000"))
        call.context.send_initial_metadata(headers)
        yield httpbody_pb2.HttpBody(content_type="image/png", data=b"x" * 10)
        call.context.abort(grpc.StatusCode.INTERNAL, "the disk is gone")

    edge.replica.answer = answer
    with pytest.raises(httpx.RemoteProtocolError):
        stranger.get(OBJECT, headers={"range": "bytes=0-999"})


def test_over_http2_a_download_that_breaks_off_is_shorter_than_declared(edge: Edge) -> None:
    edge.replica.answer = lambda call: _object(call, 3 * MIB, MIB)
    with edge.client(headers=None, http1=False, http2=True) as client:
        response = client.get(OBJECT)
    assert (response.headers["content-length"], len(response.content)) == (str(3 * MIB), MIB)


def test_a_failure_before_the_first_event_is_a_plain_error(edge: Edge, caller: httpx.Client) -> None:
    def answer(call: Call) -> Iterator[Message]:
        call.fail(Reason.BATCH_EMPTY)
        yield from ()

    edge.replica.answer = answer
    for accept in ("application/x-ndjson", "text/event-stream"):
        headers = {"content-type": "application/json", "accept": accept}
        check_error(caller.post("/v1/infer:batch", content=b"{}", headers=headers), Reason.BATCH_EMPTY)


def test_each_event_is_sent_when_it_is_there(edge: Edge, caller: httpx.Client) -> None:
    seen: list[str] = []

    def answer(call: Call) -> Iterator[Message]:
        for number in range(3):
            yield inference_pb2.BatchEvent(
                event=inference_pb2.StreamEvent.item, item=inference_pb2.BatchItem(id=str(number))
            )
            while len(seen) <= number:
                assert call.context.is_active()

    edge.replica.answer = answer
    headers = {"content-type": "application/json"}
    with caller.stream("POST", "/v1/infer:batch", content=b"{}", headers=headers) as response:
        for line in response.iter_lines():
            seen.append(json.loads(line)["item"]["id"])
    assert seen == ["0", "1", "2"]


def test_a_batch_of_the_real_server_always_ends_with_a_last_event(stack: Stack) -> None:
    body = {"model": "shapes", "inputs": [{"id": "a", "image": {"bytes": "aGVsbG8="}}]}
    for accept, start in (("application/x-ndjson", ""), ("text/event-stream", "data: ")):
        response = httpx.post(
            f"{stack.edge_url}/v1/infer:batch", json=body, headers=stack.headers() | {"accept": accept}, timeout=30
        )
        events = [json.loads(line.removeprefix(start)) for line in response.text.splitlines() if line]
        assert [event["event"] for event in events] == ["item", "done"]
        assert events[0]["item"]["error"]["code"] == "image.invalid_format"
