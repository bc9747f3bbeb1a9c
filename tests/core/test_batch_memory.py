"""Images of one batch in memory that does not hold them all."""

from __future__ import annotations

import asyncio

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.batch_memory import BatchMemory
from camserve_server.core.infer_options import ImageSource
from camserve_server.engine.buffers import ByteBudget, SharedBuffer


def source(budget: ByteBudget, n_bytes: int, *, pieces: int = 4) -> ImageSource:
    """An image that comes piece by piece, as from a store."""

    async def come() -> SharedBuffer:
        buffer = SharedBuffer.create("image", budget)
        try:
            for _ in range(pieces):
                await asyncio.sleep(0)
                buffer.append(bytes(n_bytes // pieces))
        except BaseException:
            buffer.close()
            raise
        return buffer

    return ImageSource(come)


async def used(memory: BatchMemory, image: ImageSource) -> int:
    async with memory.opened(image) as opened:
        await asyncio.sleep(0)
        return opened.size


async def test_more_images_than_the_memory_holds_come_one_after_the_other():
    memory, budget = BatchMemory(), ByteBudget(1000)
    sizes = await asyncio.gather(*(used(memory, source(budget, 400)) for _ in range(30)))
    assert (sizes, budget.taken_bytes) == ([400] * 30, 0)


async def test_a_large_image_is_not_kept_waiting_by_small_ones():
    memory, budget = BatchMemory(), ByteBudget(1000)
    images = [source(budget, 300) for _ in range(10)] + [source(budget, 1000)]
    assert await asyncio.gather(*(used(memory, image) for image in images)) == [300] * 10 + [1000]


async def test_whoever_finds_the_memory_taken_by_others_than_its_batch_is_refused():
    memory, budget = BatchMemory(), ByteBudget(1000)
    with SharedBuffer.create("other", budget) as other:
        other.append(bytes(700))
        outcomes = await asyncio.gather(
            *(used(memory, source(budget, size)) for size in (200, 400, 200)), return_exceptions=True
        )
    assert [outcome if isinstance(outcome, int) else outcome.reason for outcome in outcomes] == [
        200,
        Reason.SERVICE_OVERLOADED,
        200,
    ]
    assert budget.taken_bytes == 0


async def test_what_goes_wrong_otherwise_is_told_at_once():
    async def missing() -> SharedBuffer:
        raise ApiError(Reason.UPLOAD_NOT_FOUND)

    with pytest.raises(ApiError) as caught:
        await used(BatchMemory(), ImageSource(missing))
    assert caught.value.reason is Reason.UPLOAD_NOT_FOUND


async def test_who_leaves_while_it_waits_takes_no_place():
    memory, budget = BatchMemory(), ByteBudget(400)
    async with memory.opened(source(budget, 400)):
        waiting = asyncio.create_task(used(memory, source(budget, 400)))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        last = asyncio.create_task(used(memory, source(budget, 400)))
        await asyncio.sleep(0.01)
        assert not last.done()
    assert await last == 400
