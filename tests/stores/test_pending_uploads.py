from __future__ import annotations

import time
from dataclasses import replace

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.stores import pending_uploads
from camserve_server.stores.durability import Disk
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.pending_uploads import Declaration, PendingUploads
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.uploads import Presigned, UploadRecord, Uploads


@pytest.fixture
def pending(redis, tmp_path):
    return PendingUploads(redis, Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any"), Disk())


@pytest.fixture
def uploads(redis):
    return Uploads(redis, Disk())


def soon():
    return int(time.time() * 1000) + 60_000


async def begun(pending, size_bytes=10):
    storage_id = new_id("img")
    await pending.begin("a", storage_id, Declaration(size_bytes, file_name="secret.png"), expires_ms=soon())
    return storage_id


async def reason(awaitable):
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.reason


def record(storage_id, object_id="obj"):
    return UploadRecord(storage_id, object_id, 10, "image/png", 1, 1, "", 0, soon())


async def test_parts_follow_one_another(pending):
    storage_id = await begun(pending)
    assert await pending.append("a", storage_id, 0, "one", 4) == 4
    assert await pending.append("a", storage_id, 0, "one", 4) == 4  # sent again by the client of the store
    assert await reason(pending.append("a", storage_id, 0, "other", 4)) is Reason.UPLOAD_OFFSET_CONFLICT
    assert await pending.append("a", storage_id, 4, "two", 6) == 10
    assert (await pending.get("a", storage_id)).whole
    assert await pending.parts("a", storage_id) == ("one", "two")
    assert await reason(pending.append("b", storage_id, 10, "three", 1)) is Reason.UPLOAD_NOT_FOUND


async def test_there_are_only_so_many_parts(pending, monkeypatch):
    monkeypatch.setattr(pending_uploads, "MOST_PARTS", 2)
    storage_id = await begun(pending)
    await pending.append("a", storage_id, 0, "one", 1)
    await pending.append("a", storage_id, 1, "two", 1)
    assert await reason(pending.append("a", storage_id, 2, "three", 1)) is Reason.PARAM_INVALID


async def test_a_second_begin_changes_nothing(pending):
    storage_id = await begun(pending)
    await pending.append("a", storage_id, 0, "one", 4)
    await pending.begin("a", storage_id, Declaration(99), expires_ms=soon())
    assert (await pending.get("a", storage_id)).declared.size_bytes == 10
    assert (await pending.get("a", storage_id)).offset == 4


async def test_what_was_declared_is_sealed_and_all_of_it_expires(pending, redis):
    storage_id = await begun(pending)
    await pending.append("a", storage_id, 0, "one", 4)
    for key in await redis.keys("*"):
        assert await redis.pttl(key) > 0
        if await redis.type(key) == b"hash":
            assert b"secret" not in b"".join((await redis.hgetall(key)).values())


async def test_an_image_ends_its_pending_upload_in_the_same_step(pending, uploads, redis):
    storage_id = await begun(pending)
    await pending.append("a", storage_id, 0, "one", 10)
    kept = await uploads.create("a", record(storage_id), pending=True)
    assert await uploads.create("a", record(storage_id, "other"), pending=True) == kept
    assert await pending.get("a", storage_id) is None
    assert await pending.parts("a", storage_id) == ()


async def test_an_upload_that_was_deleted_gets_no_image(pending, uploads):
    storage_id = await begun(pending)
    await pending.delete("a", storage_id)
    assert await uploads.create("a", record(storage_id), pending=True) is None
    assert await uploads.get("a", storage_id) is None


def record_of(storage_id):
    return UploadRecord(storage_id, new_id("obj"), 10, "image/png", 1, 1, "0" * 64, 0, soon())


async def test_a_link_is_used_once_also_when_its_image_is_gone(uploads):
    storage_id, presigned = new_id("img"), Presigned("image/png", 5_000_000_001, None)
    await uploads.promise("a", storage_id, presigned, expires_ms=soon())
    assert await uploads.promised("a", storage_id) == presigned
    first = record_of(storage_id)
    assert await uploads.create("a", first, nonce="nonce") == first
    assert await uploads.create("a", record_of(storage_id)) == first
    assert await uploads.delete("a", storage_id)
    # The same call, tried again, promises it again.
    await uploads.promise("a", storage_id, presigned, expires_ms=soon() + 60_000)
    assert await uploads.promised("a", storage_id) == replace(presigned, used_by="nonce")
    assert await uploads.create("a", record_of(storage_id)) is None
    assert await uploads.get("a", storage_id) is None
