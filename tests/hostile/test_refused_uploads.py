"""What is left of calls that are refused and of uploads whose senders leave at their end: nothing."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import redis
from google.api import httpbody_pb2
from tests.conftest import Stack
from tests.hostile.conftest import Beside, Memory, target_of
from tests.images import encoded

from camserve.v1 import inference_pb2, inference_pb2_grpc, uploads_pb2, uploads_pb2_grpc

pytestmark = pytest.mark.timeout(180)
REFUSED, MESSAGE_BYTES = 24, 8_000_000
# Less than a third of what the messages have together.
MOST_GROWTH_MB = 60
LEAVING = 60

Way = Callable[[grpc.aio.Channel, tuple[tuple[str, str], ...]], Awaitable[object]]


def upload(first: uploads_pb2.UploadImageRequest, *others: uploads_pb2.UploadImageRequest) -> Way:
    return lambda channel, metadata: uploads_pb2_grpc.UploadServiceStub(channel).UploadImage(
        iter([first, *others]), metadata=metadata
    )


def body(data: bytes) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(data=data)


BIG = b"GIF89a".ljust(MESSAGE_BYTES, b"\0")
WAYS: dict[str, Way] = {
    "another type": upload(uploads_pb2.UploadImageRequest(size_bytes=len(BIG), body=body(BIG))),
    "more bytes than declared": upload(uploads_pb2.UploadImageRequest(size_bytes=5000, body=body(BIG))),
    "in a later message": upload(
        uploads_pb2.UploadImageRequest(size_bytes=5000), uploads_pb2.UploadImageRequest(body=body(BIG))
    ),
    "one message": lambda channel, metadata: inference_pb2_grpc.InferenceServiceStub(channel).Infer(
        inference_pb2.InferRequest(model="none", image={"bytes": BIG}),  # type: ignore[arg-type]
        metadata=metadata,
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_nothing_stays_of_large_messages_that_were_refused(
    hostile_stack: Stack, memory: Memory, way: Way
) -> None:
    target = target_of(hostile_stack, "direct")
    options = (("grpc.max_send_message_length", -1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options=options) as channel:
        for _ in range(REFUSED):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await way(channel, (("authorization", f"Bearer {target.token}"),))
            assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_an_upload_whose_sender_leaves_at_its_end_has_both_object_and_record_or_none(
    hostile_stack: Stack, beside: Beside[None]
) -> None:
    target = target_of(hostile_stack, "direct")
    image = encoded(500, 300, "BMP")
    left = random.Random(5)

    async def messages() -> AsyncIterator[uploads_pb2.UploadImageRequest]:
        yield uploads_pb2.UploadImageRequest(size_bytes=len(image), body=body(image))

    async def leave_many() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
            stub = uploads_pb2_grpc.UploadServiceStub(channel)
            metadata = (("authorization", f"Bearer {target.token}"),)
            started = time.monotonic()
            await stub.UploadImage(messages(), metadata=metadata)
            whole_s = time.monotonic() - started
            for _ in range(LEAVING):
                call = stub.UploadImage(messages(), metadata=metadata)
                await asyncio.sleep(left.uniform(0, 2 * whole_s))
                call.cancel()

    before = kept(hostile_stack)
    await beside(leave_many())
    async with asyncio.timeout(30):
        while True:
            objects, records = (now - earlier for now, earlier in zip(kept(hostile_stack), before, strict=True))
            if objects == records:
                break
            await asyncio.sleep(0.2)
    # More than the one whose sender stayed.
    assert objects > 1


def kept(stack: Stack) -> tuple[int, int]:
    """Returns how many images are stored and how many records lead to one."""
    folder = Path(stack.data_dir) / "objects"
    stored = sum(
        path.is_file() and path.stat().st_size > 400_000 for path in folder.rglob("*") if "drafts" not in path.parts
    )
    with redis.Redis(unix_socket_path=str(stack.data_dir / "valkey" / "valkey.sock")) as store:
        return stored, sum(1 for _ in store.scan_iter("*:upload:img_*", count=1000))
