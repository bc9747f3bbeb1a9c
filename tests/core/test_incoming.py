"""What of an image waits while the store takes its time: bounded, none of it once the store has caught up."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, cast

import pytest
from tests.clock import FakeClock
from tests.images import star_png

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.antivirus import Antivirus
from camserve_server.core.incoming import IncomingImage
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.objects import read_whole

MIB = 1 << 20


class SlowDraft:
    """A draft that writes once it is let, and fails then if it is to."""

    def __init__(self, draft: Any) -> None:
        self._draft = draft
        self.object_id = draft.object_id
        self.let = asyncio.Semaphore(0)
        self.writes: list[int] = []
        self.fails = False

    async def write(self, *pieces: bytes) -> None:
        self.writes.append(sum(map(len, pieces)))
        await self.let.acquire()
        if self.fails:
            raise ApiError(Reason.UPSTREAM_FAILED)
        await self._draft.write(*pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._draft, name)


class SlowObjects:
    """The local store with drafts that take their time."""

    def __init__(self, objects: LocalObjects) -> None:
        self.objects = objects
        self.made: list[SlowDraft] = []

    async def draft(self, *args: Any, **kwargs: Any) -> SlowDraft:
        self.made.append(SlowDraft(await self.objects.draft(*args, **kwargs)))
        return self.made[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.objects, name)


@pytest.fixture
async def objects(tmp_path):
    clock = FakeClock()
    store = LocalObjects(tmp_path / "objects", KeyRing(tmp_path / "keys.json", clock=clock), clock=clock)
    yield SlowObjects(store)
    await store.close()


def incoming(objects, budget):
    clock = FakeClock()
    return IncomingImage(
        "ours",
        objects,
        # The header is read only when an image is checked.
        cast("Any", None),
        Antivirus(None, clock, fail_open=False),
        budget,
        expires_at=clock.now() + 3600,
        media_type=None,
        file_name=None,
        has_md5=False,
    )


def pieces(count):
    first = star_png().ljust(MIB, b"\0")
    # As they come: whole messages, and views of them.
    return [first, *(memoryview(bytes([n]) * MIB) if n % 2 else bytes([n]) * MIB for n in range(1, count))]


async def settled(condition):
    """Waits until the condition holds, and for what might break it."""
    held = 0
    async with asyncio.timeout(30):
        while held < 10:
            await asyncio.sleep(0.005)
            held = held + 1 if condition() else 0


async def sent(image, data, count):
    """Sends pieces until `count` have gone and no more will; returns those and the task that sends."""
    gone = []

    async def send():
        for piece in data:
            await image.append(piece)
            gone.append(piece)

    task = asyncio.create_task(send())
    await settled(lambda: len(gone) == count)
    return gone, task


async def test_what_waits_is_written_together_and_no_more_than_four_pieces_of_it(objects):
    budget = ByteBudget(64 * MIB)
    image = incoming(objects, budget)
    data = pieces(14)
    gone, task = await sent(image, data, 8)
    [draft] = objects.made
    assert draft.writes == [4 * MIB]
    draft.let.release()
    await settled(lambda: (draft.writes, len(gone)) == ([4 * MIB, 4 * MIB], 12))
    for _ in range(14):
        draft.let.release()
    await task
    await image.end()
    assert sum(draft.writes) == 14 * MIB
    assert image.sha256 == hashlib.sha256(b"".join(data)).digest()
    object_id = await image.commit()
    await image.discard()
    assert budget.taken_bytes == 0
    assert await read_whole(objects.objects, "ours", object_id) == b"".join(data)


async def test_a_sender_that_stops_leaves_nothing_waiting(objects):
    budget = ByteBudget(64 * MIB)
    image = incoming(objects, budget)
    _, task = await sent(image, pieces(7), 7)
    [draft] = objects.made
    assert draft.writes == [4 * MIB]
    for _ in range(2):
        draft.let.release()
    # The beginning is kept, for its header.
    await settled(lambda: (draft.writes, budget.taken_bytes) == ([4 * MIB, 3 * MIB], 7 * MIB))
    await task
    await image.discard()
    assert budget.taken_bytes == 0


async def test_where_the_budget_has_no_room_one_piece_waits(objects):
    budget = ByteBudget(64 * MIB)
    assert budget.try_take(63 * MIB + MIB // 2)
    image = incoming(objects, budget)
    _, task = await sent(image, [star_png().ljust(4096, b"\0"), *pieces(6)[1:]], 2)
    assert objects.made[0].writes == [4096]
    objects.made[0].let.release()
    with pytest.raises(ApiError) as caught:
        await task
    assert caught.value.reason is Reason.SERVICE_OVERLOADED
    objects.made[0].let.release()
    await image.discard()
    assert budget.taken_bytes == 63 * MIB + MIB // 2


async def test_who_leaves_while_pieces_are_written_leaves_nothing_taken(objects):
    for _ in range(8):
        budget = ByteBudget(64 * MIB)
        image = incoming(objects, budget)
        data = iter(pieces(9))
        for _ in range(7):
            await image.append(next(data))
        await asyncio.sleep(0)
        sending = asyncio.create_task(image.append(next(data)))
        await asyncio.sleep(0.0005)
        sending.cancel()
        await image.discard()
        await asyncio.wait([sending])
        await asyncio.sleep(0.02)
        assert budget.taken_bytes == 0


async def test_pieces_wait_only_where_most_of_the_budget_is_free(objects):
    budget = ByteBudget(64 * MIB)
    assert budget.try_take(31 * MIB)
    image = incoming(objects, budget)
    # Two are handed on, of which one waited for the other, and one waits as ever.
    _, task = await sent(image, pieces(6), 3)
    assert objects.made[0].writes == [2 * MIB]
    task.cancel()
    await image.discard()
    assert budget.taken_bytes == 31 * MIB


async def test_what_went_wrong_with_a_piece_is_raised_by_one_after_it(objects):
    budget = ByteBudget(64 * MIB)
    image = incoming(objects, budget)
    _, task = await sent(image, pieces(12), 8)
    [draft] = objects.made
    draft.fails = True
    draft.let.release()
    with pytest.raises(ApiError) as caught:
        await task
    assert caught.value.reason is Reason.UPSTREAM_FAILED
    await image.discard()
    assert budget.taken_bytes == 0
    assert draft.writes == [4 * MIB]
