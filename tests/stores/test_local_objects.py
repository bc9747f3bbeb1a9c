"""Local objects: what is put comes back, to its tenant only, until it expires, whatever happens to the disk."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.objects import HOUR_S, ObjectStore

PNG = "image/png"


def files(root: Path) -> list[Path]:
    return [path for path in (root / "objects").rglob("*") if not path.is_dir()]


async def content(store: ObjectStore, tenant: str, object_id: str) -> bytes:
    async with await store.open(tenant, object_id) as stored:
        return b"".join([chunk async for chunk in stored.read(0, stored.size_bytes)])


async def reason_of(call: object) -> Reason:
    with pytest.raises(ApiError) as caught:
        await call  # type: ignore[misc]
    return caught.value.reason


@pytest.mark.parametrize("size", [0, 1, 300_000, 1 << 20, 2_500_000])
async def test_what_is_put_comes_back(objects: LocalObjects, clock: FakeClock, size: int) -> None:
    data = os.urandom(size)
    expires_at = clock.now() + 900.25
    object_id = await objects.put("acme", data, content_type=PNG, expires_at=expires_at)
    async with await objects.open("acme", object_id) as stored:
        assert (stored.size_bytes, stored.content_type, stored.expires_at) == (size, PNG, expires_at)
        assert b"".join([chunk async for chunk in stored.read(0, size)]) == data
        assert [chunk async for chunk in stored.read(size, size)] == []


async def test_range_comes_in_chunks_of_a_megabyte_or_less(objects: LocalObjects, clock: FakeClock) -> None:
    data = os.urandom(3_000_000)
    object_id = await objects.put("acme", data, content_type=PNG, expires_at=clock.now() + 9)
    async with await objects.open("acme", object_id) as stored:
        chunks = [chunk async for chunk in stored.read(1_000_000, 2_999_999)]
        assert b"".join(chunks) == data[1_000_000:2_999_999]
        assert max(map(len, chunks)) <= 1 << 20
        for start, end in ((-1, 2), (2, 1), (0, 3_000_001)):
            with pytest.raises(ValueError, match="outside"):
                await anext(aiter(stored.read(start, end)))


async def test_other_tenant_gets_the_answer_of_an_unknown_id(objects: LocalObjects, clock: FakeClock) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 9)
    unknown = object_id[:-6] + ("0" if object_id[-6] != "0" else "1") + object_id[-5:]
    for tenant, asked in (("other", object_id), ("acme", unknown), ("", object_id), ("acme", "obj_x")):
        assert await reason_of(objects.open(tenant, asked)) is Reason.OBJECT_NOT_FOUND
    await objects.delete("other", object_id)
    assert await content(objects, "acme", object_id) == b"data"


@pytest.mark.parametrize("tenant", ["../../../etc", "a/b", ".", "\0", "名前", "x" * 300])
async def test_tenant_names_never_become_paths(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path, tenant: str
) -> None:
    object_id = await objects.put(tenant, b"data", content_type=PNG, expires_at=clock.now() + 9)
    assert await content(objects, tenant, object_id) == b"data"
    assert [path.name for path in files(tmp_path)] == [object_id]


@pytest.mark.parametrize("object_id", ["../../keys/objects.json", "obj_../../../../../../etc/passwd", "", "\0"])
async def test_malformed_ids_do_not_reach_the_disk(objects: LocalObjects, object_id: str) -> None:
    assert await reason_of(objects.open("acme", object_id)) is Reason.OBJECT_NOT_FOUND
    await objects.delete("acme", object_id)


async def test_expiry_is_exact_although_the_file_is_still_there(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    clock.advance(9.999)
    assert await content(objects, "acme", object_id) == b"data"
    clock.advance(0.001)
    assert await reason_of(objects.open("acme", object_id)) is Reason.OBJECT_NOT_FOUND
    assert files(tmp_path)


async def test_reader_that_has_begun_is_not_disturbed_by_deletion(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    data = os.urandom(2_500_000)
    object_id = await objects.put("acme", data, content_type=PNG, expires_at=clock.now() + 10)
    async with await objects.open("acme", object_id) as stored:
        chunks = stored.read(0, len(data))
        first = await anext(chunks)
        await objects.delete("acme", object_id)
        assert files(tmp_path) == []
        assert first + b"".join([chunk async for chunk in chunks]) == data
    assert await reason_of(objects.open("acme", object_id)) is Reason.OBJECT_NOT_FOUND
    await objects.delete("acme", object_id)


async def test_closed_object_gives_its_descriptor_back(objects: LocalObjects, clock: FakeClock) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    opened = [await objects.open("acme", object_id) for _ in range(20)]
    assert len(os.listdir("/dev/fd")) == before + 20
    for stored in opened:
        await stored.close()
        await stored.close()
        with pytest.raises(ValueError, match="closed"):
            await anext(aiter(stored.read(0, 1)))
    # A thread lets go of the last result only when it takes new work.
    await asyncio.gather(*(objects.delete("acme", "obj_none") for _ in range(16)))
    assert len(os.listdir("/dev/fd")) == before


async def test_bytes_on_disk_are_encrypted_and_private(objects: LocalObjects, clock: FakeClock, tmp_path: Path) -> None:
    secret = b"a secret that must not be seen" * 100
    await objects.put("acme", secret, content_type=PNG, expires_at=clock.now() + 10)
    (path,) = files(tmp_path)
    assert secret[:30] not in path.read_bytes()
    assert b"acme" not in path.read_bytes()
    assert "acme" not in str(path.relative_to(tmp_path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folders = [tmp_path / "objects", *(folder for folder in path.parents if (tmp_path / "objects") in folder.parents)]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o700] * 3


async def test_flipping_any_byte_of_a_file_is_noticed(objects: LocalObjects, clock: FakeClock, tmp_path: Path) -> None:
    object_id = await objects.put("acme", b"some data", content_type=PNG, expires_at=clock.now() + 10)
    (path,) = files(tmp_path)
    stored = path.read_bytes()
    for index in range(len(stored)):
        damaged = bytearray(stored)
        damaged[index] ^= 1 << (index % 8)
        path.write_bytes(damaged)
        assert await reason_of(content(objects, "acme", object_id)) is Reason.UPSTREAM_FAILED, index
    for damaged_file in (stored[:-1], stored + b"\0", b"", stored[:20]):
        path.write_bytes(damaged_file)
        assert await reason_of(objects.open("acme", object_id)) is Reason.UPSTREAM_FAILED


async def test_file_moved_to_another_tenant_or_id_does_not_open(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    mine = await objects.put("acme", b"mine", content_type=PNG, expires_at=clock.now() + 10)
    (stolen,) = files(tmp_path)
    content_of_mine = stolen.read_bytes()
    theirs = await objects.put("other", b"theirs", content_type=PNG, expires_at=clock.now() + 10)
    (target,) = (path for path in files(tmp_path) if path.name == theirs)
    target.write_bytes(content_of_mine)
    assert await reason_of(objects.open("other", theirs)) is Reason.UPSTREAM_FAILED
    os.rename(target, target.with_name(mine))
    assert await reason_of(objects.open("other", mine)) is Reason.UPSTREAM_FAILED


async def test_extending_the_expiry_in_the_file_is_noticed(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=1_800_000_010.0)
    (path,) = files(tmp_path)

    old, new = struct.pack(">d", 1_800_000_010.0), struct.pack(">d", 1_800_000_999.0)
    assert path.read_bytes().count(old) == 1
    path.write_bytes(path.read_bytes().replace(old, new))
    clock.advance(100)
    assert await reason_of(objects.open("acme", object_id)) is Reason.UPSTREAM_FAILED


async def test_objects_outlive_a_rotation_of_keys(
    objects: LocalObjects, ring: KeyRing, clock: FakeClock, tmp_path: Path
) -> None:
    old = await objects.put("acme", b"old", content_type=PNG, expires_at=clock.now() + 10)
    other_process = KeyRing(tmp_path / "keys" / "objects.json", clock=clock)
    new_key = other_process.rotate()
    clock.advance(1)
    new = await objects.put("acme", b"new", content_type=PNG, expires_at=clock.now() + 9)
    assert [await content(objects, "acme", object_id) for object_id in (old, new)] == [b"old", b"new"]
    (path,) = (path for path in files(tmp_path) if path.name == new)
    assert bytes.fromhex(new_key) == path.read_bytes()[4:8]


async def test_object_of_a_key_that_is_gone_does_not_open(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    (tmp_path / "keys" / "objects.json").unlink()
    stranger = LocalObjects(tmp_path / "objects", KeyRing(tmp_path / "keys" / "objects.json", clock=clock), clock=clock)
    assert await reason_of(stranger.open("acme", object_id)) is Reason.UPSTREAM_FAILED
    await stranger.close()


async def test_janitor_drops_past_hours_and_nothing_else(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    hour_end = (clock.now() // HOUR_S + 1) * HOUR_S
    gone = [await objects.put(tenant, b"x", content_type=PNG, expires_at=hour_end - 1) for tenant in ("a", "b", "b")]
    kept = await objects.put("a", b"kept", content_type=PNG, expires_at=hour_end + 10)
    (tmp_path / "objects" / "notes").mkdir()
    clock.time = hour_end - 0.5
    assert await objects.remove_expired() == 0
    assert len(files(tmp_path)) == 4
    clock.time = hour_end
    assert await objects.remove_expired() == 3
    assert [path.name for path in files(tmp_path)] == [kept]
    assert await content(objects, "a", kept) == b"kept"
    for object_id in gone:
        assert await reason_of(objects.open("a", object_id)) is Reason.OBJECT_NOT_FOUND
    assert sorted(path.name for path in (tmp_path / "objects").iterdir()) == [
        str(int(hour_end // HOUR_S)),
        "drafts",
        "notes",
    ]
    assert await objects.remove_expired() == 0


async def test_janitors_of_several_processes_do_not_disturb_each_other(
    objects: LocalObjects, ring: KeyRing, clock: FakeClock, tmp_path: Path
) -> None:
    for number in range(40):
        await objects.put(f"tenant {number}", b"x", content_type=PNG, expires_at=clock.now() + 1)
    others = [LocalObjects(tmp_path / "objects", ring, clock=clock) for _ in range(3)]
    clock.advance(2 * HOUR_S)
    assert sum(await asyncio.gather(*(store.remove_expired() for store in [objects, *others]))) == 40
    assert files(tmp_path) == []
    assert [path.name for path in (tmp_path / "objects").iterdir()] == ["drafts"]
    for store in others:
        await store.close()


async def test_janitor_removes_drafts_of_crashed_writers_only_when_old(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    for name, age_s in (("old", 3600), ("fresh", 3599)):
        draft = tmp_path / "objects" / "drafts" / name
        draft.write_bytes(b"x")
        os.utime(draft, (clock.now() - age_s, clock.now() - age_s))
    await objects.remove_expired()
    assert [path.name for path in files(tmp_path)] == ["fresh"]


def test_writer_killed_midway_leaves_only_a_draft(tmp_path: Path) -> None:
    # The writer stops itself at the rename, when the whole object is written but not yet published.
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from camserve_server.base.clock import SystemClock\n"
        "from camserve_server.stores.keyring import KeyRing\n"
        "from camserve_server.stores.local_objects import LocalObjects\n"
        "os.rename = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
        "root, clock = Path(sys.argv[1]), SystemClock()\n"
        "store = LocalObjects(root / 'objects', KeyRing(root / 'ring.json', clock=clock), clock=clock)\n"
        "asyncio.run(store.put('acme', b'x' * 3000000, content_type='image/png', expires_at=9e9))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path], env={"PYTHONPATH": ":".join(sys.path)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    (draft,) = files(tmp_path)
    assert draft.parent.name == "drafts"
    assert draft.stat().st_size > 3_000_000


@pytest.mark.parametrize("level", ["file", "tenant", "hour"])
async def test_symbolic_links_are_not_followed(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path, level: str
) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    (path,) = files(tmp_path)
    part = {"file": path, "tenant": path.parent, "hour": path.parent.parent}[level]
    elsewhere = tmp_path / "elsewhere"
    part.rename(elsewhere)
    part.symlink_to(elsewhere)
    assert await reason_of(objects.open("acme", object_id)) is Reason.UPSTREAM_FAILED
    clock.advance(2 * HOUR_S)
    await objects.remove_expired()
    assert elsewhere.exists()


async def test_fifo_in_place_of_an_object_does_not_hold_the_reader(
    objects: LocalObjects, clock: FakeClock, tmp_path: Path
) -> None:
    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    (path,) = files(tmp_path)
    path.unlink()
    os.mkfifo(path)
    assert await reason_of(objects.open("acme", object_id)) is Reason.UPSTREAM_FAILED


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EDQUOT])
@pytest.mark.parametrize("call", ["write", "rename", "mkdir"])
async def test_disk_that_fails_a_put_is_an_upstream_failure_and_leaves_nothing(
    objects: LocalObjects,
    clock: FakeClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    call: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        put = objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
        assert await reason_of(put) is Reason.UPSTREAM_FAILED
    assert files(tmp_path) == []
    assert await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)


@pytest.mark.parametrize("call", ["open", "pread", "fstat"])
async def test_disk_that_fails_a_read_is_an_upstream_failure(
    objects: LocalObjects, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    object_id = await objects.put("acme", b"data", content_type=PNG, expires_at=clock.now() + 10)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        assert await reason_of(objects.open("acme", object_id)) is Reason.UPSTREAM_FAILED
    assert await content(objects, "acme", object_id) == b"data"


async def test_short_writes_are_continued(
    objects: LocalObjects, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[int, bytes | memoryview], int] = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
        object_id = await objects.put("acme", b"d" * 5000, content_type=PNG, expires_at=clock.now() + 10)
    assert await content(objects, "acme", object_id) == b"d" * 5000


async def test_two_stores_on_one_folder_see_each_others_objects(
    objects: LocalObjects, ring: KeyRing, clock: FakeClock, tmp_path: Path
) -> None:
    other = LocalObjects(tmp_path / "objects", ring, clock=clock)
    ids = await asyncio.gather(
        *(
            store.put("acme", bytes([number]), content_type=PNG, expires_at=clock.now() + 10)
            for number, store in enumerate([objects, other] * 10)
        )
    )
    assert [await content(objects, "acme", object_id) for object_id in ids] == [bytes([n]) for n in range(20)]
    await other.close()


async def test_cancelled_reader_leaves_the_store_working(objects: LocalObjects, clock: FakeClock) -> None:
    data = os.urandom(2_500_000)
    object_id = await objects.put("acme", data, content_type=PNG, expires_at=clock.now() + 10)
    for _ in range(20):
        task = asyncio.create_task(content(objects, "acme", object_id))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await content(objects, "acme", object_id) == data
