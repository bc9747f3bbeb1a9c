"""Objects of the local store while they are written, and when they are on the disk."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from pathlib import Path

import pytest
from tests.clock import FakeClock
from tests.stores.test_local_objects import PNG, content, files, reason_of

from camserve_server.base.errors import Reason
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.objects import HOUR_S


async def test_sync_syncs_the_files_and_the_folders_that_changed_each_once(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def synced(ids: list[str]) -> list[int]:
        numbers: list[int] = []
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda number: numbers.append(os.fstat(number).st_ino))
            await objects.sync("acme", ids)
        return sorted(numbers)

    async def put() -> str:
        return await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)

    def numbers(*paths: Path) -> list[int]:
        return sorted(path.stat().st_ino for path in paths)

    root = tmp_path / "objects"
    first = [await put() for _ in range(5)]
    (hour,) = (folder for folder in root.iterdir() if folder.name.isdecimal())
    (owner,) = hour.iterdir()
    assert await synced(first) == numbers(*files(tmp_path), root, hour, owner)
    another = await put()
    # The folders above have not changed.
    assert await synced([another]) == numbers(owner / another, owner)
    clock.advance(HOUR_S)
    later = await put()
    (next_hour,) = (folder for folder in root.iterdir() if folder.name.isdecimal() and folder != hour)
    (next_owner,) = next_hour.iterdir()
    assert await synced([later]) == numbers(next_owner / later, root, next_hour, next_owner)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
async def test_a_sync_that_fails_is_an_upstream_failure(
    objects: LocalObjects, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert await reason_of(objects.sync("acme", [object_id])) is Reason.UPSTREAM_FAILED
    await objects.delete("acme", object_id)
    assert await reason_of(objects.sync("acme", [object_id])) is Reason.OBJECT_NOT_FOUND


async def test_a_draft_whose_maker_is_canceled_leaves_nothing(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    for moment in range(1, 20):
        task = asyncio.create_task(objects.draft("acme", content_type=PNG, expires_at=clock.now() + 10))
        await asyncio.sleep(moment / 20_000)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
    await objects.check()  # the threads have done what was asked before
    while files(tmp_path):
        await asyncio.sleep(0.01)


async def test_a_draft_is_an_object_once_it_is_committed(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    draft = await objects.draft("acme", content_type=PNG, expires_at=clock.now() + 10)
    for piece in (b"one", b"", b"two" * 1_000_000):
        await draft.write(piece)
    assert await reason_of(objects.open("acme", draft.object_id)) is Reason.OBJECT_NOT_FOUND
    await draft.commit()
    await draft.discard()
    assert await content(objects, "acme", draft.object_id) == b"one" + b"two" * 1_000_000
    given_up = await objects.draft("acme", content_type=PNG, expires_at=clock.now() + 10)
    await given_up.write(b"data")
    await given_up.discard()
    await given_up.discard()
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
async def test_a_disk_that_fails_while_bytes_come_fails_the_draft(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fdatasync", fail)
    draft = await objects.draft("acme", content_type=PNG, expires_at=clock.now() + 10)
    await draft.write(bytes(40 << 20))
    assert await reason_of(draft.commit()) is Reason.UPSTREAM_FAILED
    await draft.discard()
    assert files(tmp_path) == []
    assert not list((tmp_path / "objects" / "drafts").iterdir())


async def test_a_caller_canceled_while_the_disk_is_slow_leaves_nothing(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fdatasync", lambda _: time.sleep(0.3))
    draft = await objects.draft("acme", content_type=PNG, expires_at=clock.now() + 10)
    await draft.write(bytes(40 << 20))
    committing = asyncio.create_task(draft.commit())
    await asyncio.sleep(0.05)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    await draft.discard()
    assert not list((tmp_path / "objects" / "drafts").iterdir())


async def test_the_janitor_leaves_a_draft_whose_writer_is_slow(
    objects: LocalObjects, ring: KeyRing, clock: FakeClock, tmp_path: Path
) -> None:
    draft = await objects.draft("acme", content_type=PNG, expires_at=clock.now() + 9 * HOUR_S)
    await draft.write(b"slow")
    (file,) = files(tmp_path)
    os.utime(file, (clock.now() - 2 * HOUR_S, clock.now() - 2 * HOUR_S))
    other = LocalObjects(tmp_path / "objects", ring, clock=clock)
    await other.remove_expired()
    await other.close()
    await draft.write(b"ly")
    await draft.commit()
    assert await content(objects, "acme", draft.object_id) == b"slowly"
