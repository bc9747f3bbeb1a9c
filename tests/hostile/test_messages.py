"""Messages that are larger than they look, or that nobody has asked for."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from tests.conftest import Stack
from tests.hostile.conftest import Beside, Memory, Target
from tests.hostile.frames import DATA, END_STREAM, Connection, frame, headers, message
from tests.hostile.frames import grpc as fields
from tests.images import star_png

from camserve.v1 import inference_pb2

CREATE_JOB = "/camserve.v1.JobService/CreateJob"
INFER = "/camserve.v1.InferenceService/Infer"
UPLOAD = "/camserve.v1.InferenceService/InferUpload"
LARGE_BYTES = 95_000_000
AT_ONCE = 8
# One such message kept would be more.
MOST_GROWTH_MB = 90


def field(number: int, data: bytes) -> bytes:
    length = len(data)
    varint = bytearray()
    while length > 0x7F:
        varint.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([number << 3 | 2, *varint, length]) + data


# Of two bytes each, of which every one took 80 in memory.
CROWDS = {
    "inputs": 9_000_000 * field(4, b""),
    "metadata": field(6, field(1, field(1, b"a") + field(2, field(6, 9_000_000 * field(1, b""))))),
    "a group": bytes([0xA3, 0x06, 0x22, 0x0A, 0x7F, 0xA4, 0x06]) + 9_000_000 * field(4, b""),
    "unknown": 9_000_000 * b"\x78\x00",
}


@pytest.fixture
async def channels(target: Target) -> AsyncIterator[list[grpc.aio.Channel]]:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
    opened = [grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options=options) for _ in range(AT_ONCE)]
    yield opened
    for channel in opened:
        await channel.close()


async def refused(call: grpc.aio.Call) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


def zeros(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    piece = bytes(1 << 20)
    return b"".join(packer.compress(piece) for _ in range(size >> 20)) + packer.flush()


async def test_a_gigabyte_of_zeros_is_never_unpacked(target: Target, beside: Beside[None], memory: Memory) -> None:
    bomb = await asyncio.to_thread(zeros, 1 << 30)
    framed = message(bomb, compressed=True)
    start = headers(1, fields(INFER, authorization=f"Bearer {target.token}", grpc_encoding="gzip"), end=False)
    pieces = [frame(DATA, 0, 1, framed[at : at + 16_384]) for at in range(0, len(framed), 16_384)]

    def attack() -> None:
        with Connection(target.port) as connection:
            # What fits the first window is enough for gigabytes of zeros to begin.
            connection.sent_before_the_end(iter([start, *pieces[:3], frame(DATA, END_STREAM, 1)]))
            assert connection.ends()

    await beside(asyncio.to_thread(attack))
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_compressed_messages_are_refused_before_they_grow(
    channels: list[grpc.aio.Channel], beside: Beside[list], memory: Memory
) -> None:
    data = bytes(LARGE_BYTES)
    calls = [channel.unary_unary(INFER)(data, compression=grpc.Compression.Gzip) for channel in channels]
    codes = await beside(asyncio.gather(*map(refused, calls)))
    assert set(codes) <= {grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.UNAUTHENTICATED}
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_of_a_stranger_no_message_is_received(
    channels: list[grpc.aio.Channel], beside: Beside[list], memory: Memory
) -> None:
    data = bytes(LARGE_BYTES)
    calls = [channel.unary_unary(INFER)(data) for channel in channels]
    assert set(await beside(asyncio.gather(*map(refused, calls)))) == {grpc.StatusCode.UNAUTHENTICATED}
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_a_message_past_the_limit_is_refused(target: Target, channels: list[grpc.aio.Channel]) -> None:
    body = httpbody_pb2.HttpBody(content_type="image/png", data=bytes(106_000_000))
    first = inference_pb2.InferUploadRequest(model="shapes", size_bytes=1, body=body).SerializeToString()
    metadata = (("authorization", f"Bearer {target.token}"),)
    code = await refused(channels[0].stream_unary(UPLOAD)(iter([first]), metadata=metadata))
    assert code in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.CANCELLED)


@pytest.mark.parametrize(
    ("crowd", "code"),
    [
        ("inputs", grpc.StatusCode.OUT_OF_RANGE),
        ("metadata", grpc.StatusCode.INVALID_ARGUMENT),
        ("a group", grpc.StatusCode.INVALID_ARGUMENT),
        ("unknown", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_a_crowd_of_fields_is_refused_before_it_is_read(
    target: Target,
    channels: list[grpc.aio.Channel],
    beside: Beside[grpc.StatusCode],
    memory: Memory,
    crowd: str,
    code: grpc.StatusCode,
) -> None:
    metadata = (("authorization", f"Bearer {target.token}"),)
    call = channels[0].unary_unary(CREATE_JOB)(CROWDS[crowd], metadata=metadata)
    assert await beside(refused(call)) is code
    assert memory.grown_mb < MOST_GROWTH_MB


@pytest.mark.parametrize(
    "request_of_a_stranger",
    [field(15, 9_000_000 * field(3, b"")), field(15, field(2, b"x" * 100_000))],
    ids=["a crowd", "a long one"],
)
async def test_a_request_of_a_stranger_is_short(
    hostile_stack: Stack, beside: Beside[grpc.StatusCode], memory: Memory, request_of_a_stranger: bytes
) -> None:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))
    async with grpc.aio.insecure_channel(hostile_stack.grpc_target, options=options) as channel:
        call = channel.unary_unary("/camserve.v1.AuthService/IssueToken")(request_of_a_stranger)
        assert await beside(refused(call)) is grpc.StatusCode.OUT_OF_RANGE
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_form_fields_with_a_hundred_thousand_values_are_refused(
    hostile_stack: Stack, beside: Beside[httpx.Response]
) -> None:
    ones = "[" + "1," * 32_000 + "1]"
    fields = {f"grad_cam.resolution.a{number}": ones for number in range(60)} | {"model": "shapes"}
    async with httpx.AsyncClient(base_url=hostile_stack.edge_url, timeout=20, trust_env=False) as api:
        sending = api.post(
            "/v1/infer",
            data=fields,
            files={"image": ("star.png", star_png(), "image/png")},
            headers=hostile_stack.headers(tenant="hostile"),
        )
        answer = await beside(asyncio.ensure_future(sending))
        options = {"model": "shapes", "grad_cam": {"resolution": [1] * 30_000}}
        whole = await api.post(
            "/v1/infer",
            data={"request": json.dumps(options)},
            files={"image": ("star.png", star_png(), "image/png")},
            headers=hostile_stack.headers(tenant="hostile"),
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "param.invalid")
    assert whole.status_code == 400


async def test_a_stream_without_a_message_is_given_up(target: Target, channels: list[grpc.aio.Channel]) -> None:
    # The stack of these tests waits 3 s.
    metadata = (("authorization", f"Bearer {target.token}"),)
    call = channels[0].stream_unary(UPLOAD)(metadata=metadata)
    assert await refused(call) is grpc.StatusCode.DEADLINE_EXCEEDED
