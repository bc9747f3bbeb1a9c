"""Bytes of a resumable upload that could not be written."""

from __future__ import annotations

import asyncio
import time

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.core.appending import Appending
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.durability import Disk
from camserve_server.stores.pending_uploads import Declaration, PendingUploads


class FullDisk:
    """Objects whose first write waits for `go`, and fails."""

    def __init__(self, objects):
        self._objects = objects
        self.writing, self.go = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name):
        return getattr(self._objects, name)

    async def draft(self, *owner, **more):
        draft = await self._objects.draft(*owner, **more)
        write = draft.write

        async def fails(data):
            draft.write = write
            self.writing.set()
            await self.go.wait()
            raise ApiError(Reason.UPSTREAM_FAILED)

        draft.write = fails
        return draft


@pytest.fixture
async def appending(redis, sealer, objects, clock):
    pending, disk = PendingUploads(redis, sealer, Disk()), FullDisk(objects)
    storage_id = new_id("img")
    await pending.begin("a", storage_id, Declaration(3 << 20), expires_ms=int(time.time() * 1000) + 60_000)
    upload = await pending.get("a", storage_id)
    made = Appending(pending, disk, ByteBudget(8 << 20), clock, "a", storage_id, upload)
    return made, disk, lambda: pending.parts("a", storage_id)


async def test_without_bytes_that_could_not_be_written_nothing_is_kept_of_a_caller_who_leaves(appending):
    made, disk, parts = appending

    async def sends():
        async with made:
            await made.append(b"II*\0" + bytes(1 << 20))

    sending = asyncio.create_task(sends())
    await disk.writing.wait()
    sending.cancel()
    await asyncio.sleep(0)
    disk.go.set()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await parts() == ()


async def test_who_ends_after_a_write_failed_is_told(appending, clock):
    made, disk, parts = appending
    disk.go.set()

    async def sends():
        async with made:
            await made.append(b"II*\0" + bytes(1 << 10))
            # A part is due, which is written beside the call.
            clock.advance(3600)
            await disk.writing.wait()

    with pytest.raises(ApiError) as failed:
        await sends()
    assert failed.value.reason is Reason.UPSTREAM_FAILED
    assert await parts() == ()


async def test_without_bytes_that_could_not_be_written_nothing_is_kept_of_a_sender_who_was_given_up(appending, clock):
    made, disk, parts = appending
    disk.go.set()

    async def sends():
        async with made:
            await made.append(b"II*\0" + bytes(1 << 10))
            # A part is due, which is written beside the call.
            clock.advance(3600)
            await disk.writing.wait()
            raise ApiError(Reason.TIMEOUT_EXCEEDED)

    with pytest.raises(ApiError):
        await sends()
    assert await parts() == ()
