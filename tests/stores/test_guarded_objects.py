"""A store that keeps failing is left alone and tried again; what fails for another reason is not held against it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.guarded_objects import GuardedObjects
from camserve_server.stores.local_objects import LocalObject, LocalObjects


class FaultyObjects(LocalObjects):
    """Fails while it is told to; counts what reached it."""

    writes_fail = reads_fail = False
    asked = 0

    def _tell(self, fails: bool) -> None:
        self.asked += 1
        if fails:
            raise ApiError(Reason.UPSTREAM_FAILED)

    async def put(self, *args: object, **options: object) -> str:
        self._tell(self.writes_fail)
        return await super().put(*args, **options)

    async def open(self, *args: object) -> LocalObject:
        self._tell(self.reads_fail)
        return await super().open(*args)

    async def check(self) -> None:
        self._tell(self.reads_fail)


@pytest.fixture
async def inner(tmp_path, ring, clock) -> AsyncIterator[FaultyObjects]:
    store = FaultyObjects(tmp_path / "objects", ring, clock=clock)
    yield store
    await store.close()


@pytest.fixture
def guarded(inner: FaultyObjects, clock: FakeClock) -> GuardedObjects:
    return GuardedObjects(inner, clock)


async def put(store: GuardedObjects, clock: FakeClock) -> str:
    return await store.put("a", b"data", content_type="image/png", expires_at=clock.now() + 3600)


async def refusal(awaitable) -> tuple[Reason, int | None]:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.reason, caught.value.retry_after_s


async def read(store: GuardedObjects, object_id: str) -> bytes:
    async with await store.open("a", object_id) as stored:
        return b"".join([chunk async for chunk in stored.read(0, stored.size_bytes)])


async def test_writes_that_keep_failing_are_left_alone_and_reads_go_on(guarded, inner, clock):
    object_id = await put(guarded, clock)
    inner.writes_fail = True
    for _ in range(5):
        assert await refusal(put(guarded, clock)) == (Reason.UPSTREAM_FAILED, 1)
    asked = inner.asked
    for begins in (
        lambda: put(guarded, clock),
        lambda: guarded.draft("a", content_type="image/png", expires_at=clock.now() + 3600),
        lambda: guarded.delete("a", object_id),
        guarded.check,
    ):
        assert await refusal(begins()) == (Reason.CIRCUIT_OPEN, 1)
    assert inner.asked == asked + 1  # the check asks about reading first
    assert await read(guarded, object_id) == b"data"
    clock.advance(1)
    assert await refusal(put(guarded, clock)) == (Reason.UPSTREAM_FAILED, 1)
    assert await refusal(put(guarded, clock)) == (Reason.CIRCUIT_OPEN, 2)
    inner.writes_fail = False
    clock.advance(2)
    assert await read(guarded, await put(guarded, clock)) == b"data"
    await guarded.check()


async def test_the_health_check_finds_out_that_reading_works_again(guarded, inner, clock):
    inner.reads_fail = True
    for _ in range(5):
        assert await refusal(guarded.check()) == (Reason.UPSTREAM_FAILED, 1)
    inner.reads_fail = False
    assert await refusal(guarded.open("a", "any")) == (Reason.CIRCUIT_OPEN, 1)
    clock.advance(1)
    await guarded.check()
    assert await refusal(guarded.open("a", "any")) == (Reason.OBJECT_NOT_FOUND, None)


async def test_what_is_not_there_is_no_failure(guarded, clock):
    for _ in range(6):
        assert await refusal(guarded.open("a", "obj_unknown")) == (Reason.OBJECT_NOT_FOUND, None)
    assert await put(guarded, clock)


async def test_a_damaged_object_opens_nothing(guarded, tmp_path, clock):
    damaged, whole = await put(guarded, clock), await put(guarded, clock)
    (file,) = (tmp_path / "objects").rglob(damaged)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    for _ in range(6):
        assert (await refusal(read(guarded, damaged)))[0] is Reason.UPSTREAM_FAILED
    assert await read(guarded, whole) == b"data"


async def test_what_has_begun_goes_on_and_its_failures_count(guarded, inner, clock, monkeypatch):
    object_id = await put(guarded, clock)
    draft = await guarded.draft("a", content_type="image/png", expires_at=clock.now() + 3600)
    begun = [await guarded.open("a", object_id) for _ in range(6)]

    async def broken(stored: LocalObject, start: int, end: int) -> AsyncGenerator[bytes]:
        raise ApiError(Reason.UPSTREAM_FAILED)
        yield b""

    with monkeypatch.context() as patched:
        patched.setattr(LocalObject, "read", broken)
        for stored in begun[1:]:
            assert await refusal(anext(stored.read(0, 4))) == (Reason.UPSTREAM_FAILED, 1)
    assert await refusal(guarded.open("a", object_id)) == (Reason.CIRCUIT_OPEN, 1)
    assert b"".join([chunk async for chunk in begun[0].read(0, 4)]) == b"data"
    inner.writes_fail = True
    for _ in range(5):
        await refusal(put(guarded, clock))
    await draft.write(b"more")
    await draft.commit()
    clock.advance(1)
    assert await read(guarded, draft.object_id) == b"more"
