"""Uploads that are begun and not ended, 200 at a time, of one tenant and of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from tests.conftest import Stack
from tests.hostile.conftest import DIRECT, EDGE, Beside, Target, target_of
from tests.hostile.frames import DATA, END_STREAM, HEADERS, Connection, frame, headers, message
from tests.hostile.frames import grpc as call_of

from camserve.v1 import inference_pb2, uploads_pb2

UPLOADS = 200
STALLED_S = 5.0
# The stack of these tests gives a stalled upload up after 3 s.
GIVEN_UP_WITHIN_S = 20.0
FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\x89PNG\r\n\x1a\n'


def raw(token: str) -> bytes:
    head = f"POST /v1/uploads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: image/png\r\n"
    return f"{head}content-length: 100000\r\n\r\n".encode() + b"\x89PNG\r\n\x1a\n"


def multipart(token: str) -> bytes:
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n"
    return f"{head}content-type: multipart/form-data; boundary=x\r\ncontent-length: 100000\r\n\r\n".encode() + FORM


async def stalled(port: int, begin: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(begin)
        async with asyncio.timeout(STALLED_S):
            await reader.read()
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()


def tokens(stack: Stack, tenants: int) -> list[str]:
    known = [stack.token(tenant=f"half-open-{number}") for number in range(tenants)]
    return [known[number % tenants] for number in range(UPLOADS)]


@pytest.mark.parametrize("tenants", [1, 50])
@pytest.mark.parametrize("begin", [raw, multipart])
async def test_beside_half_open_uploads_over_rest_the_others_are_answered(
    hostile_stack: Stack, beside: Beside[list], begin: Callable[[str], bytes], tenants: int
) -> None:
    port = target_of(hostile_stack, EDGE).port
    await beside(asyncio.gather(*(stalled(port, begin(token)) for token in tokens(hostile_stack, tenants))))


def document(token: str, length: int) -> bytes:
    head = f"POST /v1/infer HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n"
    return f'{head}content-length: {length}\r\n\r\n{{"model":"shapes"'.encode()


async def test_json_bodies_on_their_way_are_few_of_a_tenant_and_forgotten_when_they_break_off(
    hostile_stack: Stack, beside: Beside[list[bytes]]
) -> None:
    async def largest(tenant: str) -> str:
        asked = {"model": "none", "image": {"bytes": "A" * 19_000_000}}
        headers = hostile_stack.headers(tenant=tenant)
        async with httpx.AsyncClient(base_url=hostile_stack.edge_url, timeout=20, trust_env=False) as client:
            return str((await client.post("/v1/infer", json=asked, headers=headers)).json()["error"]["code"])

    async def answers() -> list[bytes]:
        connections = []
        for target in (target_of(hostile_stack, EDGE, tenant) for tenant in ("verbose", "wordy")):
            for _ in range(40):
                connections.append(await asyncio.open_connection("127.0.0.1", target.port))
                connections[-1][1].write(document(target.token, 19_000_000))
        waiting = [asyncio.create_task(reader.read(65536)) for reader, _ in connections]
        answered, silent = await asyncio.wait(waiting, timeout=STALLED_S)
        # Each of them took half of what there was, and left as much.
        assert await largest("quiet") == "model.not_found"
        for _, writer in connections:
            writer.close()
        await asyncio.gather(*silent)
        assert silent
        return [task.result() for task in answered]

    refused = await beside(answers())
    assert refused
    for head in refused:
        assert head.startswith(b"HTTP/1.1 429")
        assert b"concurrency.exceeded" in head
        assert b"retry-after: 1" in head
    assert await largest("verbose") == "model.not_found"


def first_message(kind: str) -> bytes:
    body = httpbody_pb2.HttpBody(content_type="image/png", data=b"\x89PNG\r\n\x1a\n")
    if kind == "UploadImage":
        return uploads_pb2.UploadImageRequest(size_bytes=100_000, body=body).SerializeToString()
    return inference_pb2.InferUploadRequest(model="shapes", size_bytes=100_000, body=body).SerializeToString()


async def stalled_native(channel: grpc.aio.Channel, kind: str, token: str) -> grpc.StatusCode:
    service = "UploadService" if kind == "UploadImage" else "InferenceService"

    async def messages() -> AsyncIterator[bytes]:
        yield first_message(kind)
        await asyncio.Event().wait()

    call = channel.stream_unary(f"/camserve.v1.{service}/{kind}")(
        messages(), metadata=(("authorization", f"Bearer {token}"),), timeout=GIVEN_UP_WITHIN_S
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert "timeout.exceeded" in str(caught.value.trailing_metadata()), caught.value.details()
    return caught.value.code()


@pytest.mark.parametrize("tenants", [1, 50])
@pytest.mark.parametrize("kind", ["UploadImage", "InferUpload"])
async def test_half_open_native_uploads_are_given_up_and_the_others_answered(
    hostile_stack: Stack, beside: Beside[list], kind: str, tenants: int
) -> None:
    async with grpc.aio.insecure_channel(hostile_stack.grpc_target) as channel:
        calls = (stalled_native(channel, kind, token) for token in tokens(hostile_stack, tenants))
        codes = await beside(asyncio.gather(*calls))
    assert set(codes) == {grpc.StatusCode.DEADLINE_EXCEEDED}


@pytest.mark.parametrize("name", [EDGE, DIRECT])
async def test_a_tenant_has_no_more_uploads_open_than_calls_at_once(hostile_stack: Stack, name: str) -> None:
    hostile_stack.camserve("tenants", "set", "narrow", "--concurrency", "4")
    target: Target = target_of(hostile_stack, name, "narrow")
    refused = 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
        stub = channel.stream_unary("/camserve.v1.UploadService/UploadImage")
        metadata = (("authorization", f"Bearer {target.token}"),)

        async def messages() -> AsyncIterator[bytes]:
            yield first_message("UploadImage")
            await asyncio.Event().wait()

        calls = [stub(messages(), metadata=metadata, timeout=GIVEN_UP_WITHIN_S) for _ in range(10)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, grpc.aio.AioRpcError)
            refused += answer.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused >= 6


def half_sent(port: int, token: str, count: int, refused: int) -> tuple[set[int], str]:
    """Sends calls but for their last byte until so many are refused; returns those, and what an accepted one gets."""
    fields = call_of("/camserve.v1.InferenceService/Infer", authorization=f"Bearer {token}")
    whole = message(inference_pb2.InferRequest(model="none").SerializeToString())
    streams = range(1, 2 * count, 2)
    with Connection(port, within_s=GIVEN_UP_WITHIN_S) as connection:
        connection.send(*(headers(one, fields, end=False) + frame(DATA, 0, one, whole[:-1]) for one in streams))
        ended: dict[int, str] = {}
        last = 0
        for received in connection.frames():
            if received.kind == HEADERS:
                told = connection.fields(received)
                if received.flags & END_STREAM:
                    ended[received.stream] = told["grpc-message"]
            if len(ended) == refused and not last:
                last = next(one for one in streams if one not in ended)
                connection.send(frame(DATA, END_STREAM, last, whole[-1:]))
            if last in ended:
                break
    return {one for one, told in ended.items() if "half sent" in told}, ended[last]


async def test_a_tenant_has_few_single_messages_half_sent(hostile_stack: Stack, beside: Beside[tuple]) -> None:
    target = target_of(hostile_stack, DIRECT, "half-sent")
    refused, told = await beside(asyncio.to_thread(half_sent, target.port, target.token, 20, 4))
    assert len(refused) == 4
    assert "model" in told
