"""The state of a data directory, to a file and back.

The order is what makes a copy of a running service whole: first the store, at one moment; then the objects, which are
written before the store names them; then the keys, which are made before anything is sealed with them.
"""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import orjson
from redis.exceptions import RedisError

from camserve_server.base.config import Settings
from camserve_server.base.errors import OperatorError
from camserve_server.cli.stack import StackError, locked, state_file
from camserve_server.stores import redis

_FORMAT = 1
# The last entry: an archive without it was cut off.
_SEAL = "backup.json"
_LOG = "valkey/appendonlydir"
_BASE = "appendonly.aof.1.base.rdb"
_PARTS = ("keys", "valkey", "objects", "models")
_SNAPSHOT_WITHIN_S = 600.0


class BackupError(OperatorError):
    """A backup cannot be made or brought back; the message says why."""


def write(settings: Settings, file: Path) -> list[str]:
    """Writes the archive, whole or not at all, and returns what to tell: what is in it, and what is not."""
    running = _holding(settings)
    said = []
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
            if settings.redis_url:
                said.append("left out: Redis, which is yours to save; save it before this")
            elif running is None:
                _add_snapshot(archive, settings)
            else:
                _add(archive, settings.data_dir / _LOG, _LOG)
            if settings.s3_place:
                said.append("left out: the bucket, which is yours to save; save it after Redis")
            else:
                _add(archive, settings.objects_dir, "objects", without=("drafts",))
            _add(archive, settings.data_dir / "models", "models")
            _add(archive, settings.data_dir / "keys", "keys")
            files = sum(member.isfile() for member in archive.getmembers())
            seal = {"format": _FORMAT, "release": version("camserve"), "made_at": int(time.time()), "files": files}
            _add_bytes(archive, _SEAL, orjson.dumps(seal))
            archive.close()
            raw.flush()
            os.fsync(descriptor)
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    finally:
        if running is not None:
            os.close(running)
    return [*said, f"{files} files, {file.stat().st_size} bytes in {file}"]


def read(settings: Settings, file: Path) -> list[str]:
    """Brings an archive back and returns what to tell; nothing is changed unless the archive is whole.

    Raises BackupError when it is not, or when the data directory has state already.
    """
    places = {part: settings.data_dir / part for part in _PARTS} | {"objects": settings.objects_dir}
    running = _holding(settings)
    if running is None:
        raise BackupError("the service runs: stop it first")
    try:
        if taken := [str(place) for place in places.values() if place.is_dir() and any(place.iterdir())]:
            raise BackupError(f"{taken[0]} is not empty: a backup comes back into an empty data directory")
        with tempfile.TemporaryDirectory(prefix=".restore-", dir=settings.data_dir) as folder:
            files = _extract(file, Path(folder))
            for part, place in places.items():
                if (found := Path(folder, part)).is_dir():
                    shutil.rmtree(place, ignore_errors=True)
                    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    shutil.move(found, place)
    finally:
        os.close(running)
    return [f"{files} files brought back to {settings.data_dir}"]


def _holding(settings: Settings) -> int | None:
    """Returns a lock that keeps the service from starting, None where it runs."""
    folder = settings.data_dir / "run"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return locked(folder / "lock")
    except StackError:
        return None


def _add_snapshot(archive: tarfile.TarFile, settings: Settings) -> None:
    """Adds what the running store holds at one moment, as the base of a new append-only log."""
    try:
        url = str(orjson.loads(state_file(settings).read_bytes())["redis_url"])
    except (OSError, ValueError, KeyError):
        raise BackupError("the service is starting or stopping: try again in a moment") from None
    asyncio.run(_save(url))
    snapshot = settings.data_dir / "valkey" / "dump.rdb"
    archive.add(snapshot, f"{_LOG}/{_BASE}")
    snapshot.unlink()
    _add_bytes(archive, f"{_LOG}/appendonly.aof.manifest", f"file {_BASE} seq 1 type b\n".encode())


async def _save(url: str) -> None:
    client = redis.connect(url, timeout_s=10.0)
    try:
        saves = (await client.info("persistence"))["rdb_saves"]
        # Waits for a rewrite of the log that may be under way.
        await client.bgsave(schedule=True)
        ends = time.monotonic() + _SNAPSHOT_WITHIN_S
        while True:
            now = await client.info("persistence")
            # It is counted when it begins.
            if now["rdb_saves"] > saves and not now["rdb_bgsave_in_progress"]:
                break
            if time.monotonic() > ends:
                raise BackupError(f"Valkey did not finish its snapshot within {_SNAPSHOT_WITHIN_S:g} s")
            await asyncio.sleep(0.05)
        if now["rdb_last_bgsave_status"] != "ok":
            raise BackupError("Valkey could not write its snapshot; valkey.log says why")
    except RedisError as error:
        raise BackupError(f"Valkey makes no snapshot now: {error}") from None
    finally:
        await client.aclose()


def _add(archive: tarfile.TarFile, folder: Path, name: str, without: Iterable[str] = ()) -> None:
    """Adds a folder's files. One that is removed meanwhile, because its time is over, is not missed."""
    for path, folders, files in os.walk(folder):
        inside = Path(path).relative_to(folder)
        if inside == Path():
            folders[:] = [each for each in folders if each not in without]
        for each in files:
            # Drafts of files that are being replaced begin with a dot.
            if not each.startswith("."):
                try:
                    archive.add(Path(path, each), str(Path(name, inside, each)))
                except FileNotFoundError:
                    continue


def _add_bytes(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = len(content), 0o600, int(time.time())
    archive.addfile(entry, io.BytesIO(content))


def _extract(file: Path, folder: Path) -> int:
    """Unpacks an archive into an empty folder and returns how many files it holds; raises BackupError."""
    try:
        with tarfile.open(file, "r:") as archive:
            archive.extractall(folder, filter="data")
        seal = orjson.loads((folder / _SEAL).read_bytes())
        files = sum(path.is_file() for path in folder.rglob("*")) - 1
        if seal["format"] != _FORMAT:
            raise BackupError(f"{file} was written by release {seal['release']}, in a format that this one cannot read")
        if seal["files"] != files:
            raise BackupError(f"{file} holds {files} files of {seal['files']}")
    except (tarfile.TarError, KeyError, ValueError, FileNotFoundError) as error:
        raise BackupError(f"{file} is no whole backup: {error}") from None
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return files
