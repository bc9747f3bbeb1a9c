"""Backups of a data directory whose Valkey runs, or does not, and back."""

from __future__ import annotations

import asyncio
import os
import stat
import tarfile
from pathlib import Path

import pytest

from camserve_server.base.config import Settings, load
from camserve_server.cli.backup import BackupError, read, write
from camserve_server.cli.ready import write_state
from camserve_server.cli.stack import locked, state_file
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.stores.redis import connect

pytestmark = pytest.mark.timeout(180)


def filled(folder: Path, *parts: str) -> Settings:
    for part in parts:
        place = folder / part
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.write_bytes(os.urandom(100_000))
    return load(data_dir=folder)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for part in ("keys", "objects", "models") for path in (folder / part).rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


async def test_what_a_running_store_holds_comes_back_with_the_rest(tmp_path: Path) -> None:
    parts = ("keys/state.json", "objects/9/tenant/obj_1", "objects/drafts/half", "models/birds/1/model.toml")
    settings = filled(tmp_path / "data", *parts)
    file, other = tmp_path / "backup.tar", load(data_dir=tmp_path / "other")
    valkey = EmbeddedValkey(settings.data_dir)
    url = await valkey.start()
    client = connect(url)
    (settings.data_dir / "run").mkdir()
    held = locked(settings.data_dir / "run" / "lock")
    try:
        with pytest.raises(BackupError, match="starting or stopping"):
            await asyncio.to_thread(write, settings, file)
        assert not file.exists()
        write_state(state_file(settings), {"redis_url": url})
        for round_number in (b"1", b"2"):
            await client.set("job", round_number)
            await asyncio.to_thread(write, settings, file)
        await client.set("job", b"later")
        with pytest.raises(BackupError, match="stop it first"):
            read(settings, file)
    finally:
        await client.aclose()
        await valkey.stop()
        os.close(held)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    read(other, file)
    kept = files(settings.data_dir)
    del kept["objects/drafts/half"]
    assert files(other.data_dir) == kept
    assert stat.S_IMODE((other.data_dir / "keys" / "state.json").stat().st_mode) == 0o600
    restored = EmbeddedValkey(other.data_dir)
    client = connect(await restored.start())
    try:
        assert await client.get("job") == b"2"
    finally:
        await client.aclose()
        await restored.stop()


def test_a_stopped_one_is_copied_and_nothing_is_overwritten(tmp_path: Path) -> None:
    log = "valkey/appendonlydir/appendonly.aof.1.incr.aof"
    settings = filled(tmp_path / "data", "keys/urls.json", log)
    file = tmp_path / "backup.tar"
    write(settings, file)
    with tarfile.open(file) as archive:
        assert archive.getnames() == [log, "keys/urls.json", "backup.json"]
    with pytest.raises(BackupError, match="is not empty"):
        read(settings, file)


def test_an_archive_that_was_cut_off_changes_nothing(tmp_path: Path) -> None:
    settings = filled(tmp_path / "data", "keys/urls.json", "objects/9/tenant/obj_1")
    file, cut = tmp_path / "backup.tar", tmp_path / "cut.tar"
    write(settings, file)
    other = load(data_dir=tmp_path / "other")
    for length in (0, 50_000, 150_000, 201_728):
        cut.write_bytes(file.read_bytes()[:length])
        with pytest.raises(BackupError, match="no whole backup"):
            read(other, cut)
    assert files(other.data_dir) == {}


def test_what_is_elsewhere_is_left_out_and_told(tmp_path: Path) -> None:
    filled(tmp_path, "keys/urls.json")
    settings = load(data_dir=tmp_path, redis_url="redis://127.0.0.1:1", objects_url="s3://bucket/prefix")
    redis, bucket, _ = write(settings, tmp_path / "backup.tar")
    assert "Redis" in redis
    assert "bucket" in bucket
