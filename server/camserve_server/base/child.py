"""Child processes that end with us, however we end: the parent's side of `guard`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from camserve_server.base import guard
from camserve_server.base.errors import OperatorError

_GUARD_MARGIN_S = 3.0


class ChildError(OperatorError):
    """A program that was not started; `status` is one of `guard`'s, the message says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Child:
    """A running program under its guard.

    Losing the last reference stops the program like the death of the process does: keep the object.
    """

    def __init__(self, pid: int, process: asyncio.subprocess.Process, lifeline: socket.socket, grace_s: float) -> None:
        self.pid = pid
        self._process = process
        self._lifeline = lifeline
        self._grace_s = grace_s

    @property
    def guard_pid(self) -> int:
        """The guard's process id; `pid` is the program's."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status, or None while the program runs; see `guard` for what the values mean."""
        return self._process.returncode

    async def wait(self) -> int:
        """Returns the exit status once the program has ended; may be awaited by several tasks."""
        return await self._process.wait()

    def signal(self, number: int) -> None:
        """Sends SIGTERM or SIGINT to the program; does nothing when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def stop(self) -> int:
        """Ends the program, SIGTERM first and SIGKILL after the grace, and returns its exit status."""
        # The end of file on the guard's standard input is what asks it to end the program.
        self._lifeline.close()
        try:
            async with asyncio.timeout(self._grace_s + _GUARD_MARGIN_S):
                return await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()

    def __del__(self) -> None:
        self._lifeline.close()


async def start_child(
    program: Sequence[str | Path],
    *,
    lock: Path | None = None,
    lock_wait_s: float = 0.0,
    grace_s: float = 5.0,
    output: IO[bytes] | int | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Child:
    """Starts `program` under a guard, in a session of its own so that a terminal's Ctrl-C reaches only us.

    Returns once the program runs. `output` receives standard output and error, the guard's own messages
    included (default: ours). `lock` is a file that only one guard at a time may hold. Raises ChildError with
    `guard.LOCKED_STATUS` when another one holds it (and, for `lock_wait_s`, its parent lives or it does not
    end), and with `guard.NOT_STARTED_STATUS` when the program cannot be executed, and OSError when there can
    be no new process at all.
    """
    options = ["--grace-s", str(grace_s)]
    if lock is not None:
        options += ["--lock", str(lock), "--lock-wait-s", str(lock_wait_s)]
    lifeline, theirs = socket.socketpair()
    lifeline.setblocking(False)
    process = None
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", guard.__file__, *options, "--", *map(str, program)),
                stdin=theirs.fileno(),
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        return Child(await _started(lifeline), process, lifeline, grace_s)
    except BaseException:
        lifeline.close()
        if process is not None:
            await process.wait()
        raise


async def _started(lifeline: socket.socket) -> int:
    line = b""
    while not line.endswith(b"\n"):
        data = await asyncio.get_running_loop().sock_recv(lifeline, 4096)
        if not data:
            raise ChildError(guard.NOT_STARTED_STATUS, "the guard ended without a word")
        line += data
    word, _, rest = line.decode(errors="replace").strip().partition(" ")
    if word == "started":
        return int(rest)
    status, _, message = rest.partition(" ")
    raise ChildError(int(status), message)
