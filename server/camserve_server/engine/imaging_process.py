"""One imaging worker as the pool sees it: a child process, its socket, and at most one call in progress."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import camserve_server
from camserve_server.engine.imaging_channel import Channel, ChannelError, close_all

_START_S: Final = 30.0
# A call whose caller has left gets this long to end by itself: cheaper than a new process.
_ABANDONED_S: Final = 0.3
_REAP_INTERVAL_S: Final = 0.005


class WorkerLostError(Exception):
    """The worker ended before it answered.

    `asked` says whether it had seen the request, `late` whether it was ended because it was past the deadline.
    """

    def __init__(self, *, asked: bool, late: bool = False) -> None:
        super().__init__()
        self.asked = asked
        self.late = late


@dataclass(frozen=True, slots=True)
class Answer:
    """A worker's reply and the descriptors that came with it, which are the caller's to close."""

    message: dict[str, Any]
    fds: list[int]


class ImagingProcess:
    """A worker process. All methods run on the event loop; none blocks."""

    def __init__(
        self,
        options: dict[str, Any],
        on_idle: Callable[[ImagingProcess], None],
        on_exit: Callable[[ImagingProcess], None],
    ) -> None:
        """Start the process; `on_idle` is called when it can take a call, `on_exit` once it has ended."""
        self._loop = asyncio.get_running_loop()
        self._on_idle, self._on_exit = on_idle, on_exit
        self.ready = False
        self.alive = True
        self.served = 0
        self.resident_bytes = 0
        self.exited: asyncio.Future[None] = self._loop.create_future()
        self._call: asyncio.Future[Answer] | None = None
        self._late = False
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    _command(theirs.fileno(), options),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    env=_environment(),
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._channel = Channel(ours)
        self._loop.add_reader(ours.fileno(), self._on_readable)
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(_START_S, self._kill_late)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    async def call(self, message: dict[str, Any], fds: Sequence[int], deadline_s: float) -> Answer:
        """Send a request to the idle worker and wait for its answer.

        Raises WorkerLostError when the worker dies or is past the deadline. A cancelled call ends within 0.3 s on the
        worker's side, by its answer or by its death.
        """
        if not self.alive:
            raise WorkerLostError(asked=False)
        try:
            self._channel.send(message, fds)
        except OSError:
            self.kill()
            raise WorkerLostError(asked=False) from None
        call: asyncio.Future[Answer] = self._loop.create_future()
        self._call = call
        self._start_timer(deadline_s)
        try:
            return await call
        except asyncio.CancelledError:
            if self._call is call:
                self._start_timer(_ABANDONED_S)
            elif call.done() and not call.cancelled() and call.exception() is None:
                close_all(call.result().fds)
            raise

    def retire(self) -> None:
        """Let the idle worker end by hanging up."""
        self._hang_up()

    def kill(self) -> None:
        """End the process now; a call in progress raises WorkerLostError."""
        self._process.kill()
        self._hang_up()

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, self._kill_late)

    def _kill_late(self) -> None:
        self._late = True
        self.kill()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_readable(self) -> None:
        try:
            received = self._channel.receive()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, EOFError, ChannelError):
            self.kill()
            return
        if received is None:
            return
        answer = Answer(*received)
        call, self._call = self._call, None
        if self.ready and call is None:
            # It speaks without being asked.
            close_all(answer.fds)
            self.kill()
            return
        self._stop_timer()
        self.ready = True
        self.resident_bytes = _count(answer.message.get("resident_bytes"))
        if call is not None:
            self.served += 1
            if call.done():
                close_all(answer.fds)
            else:
                call.set_result(answer)
        self._on_idle(self)

    def _hang_up(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self._stop_timer()
        self._loop.remove_reader(self._channel.sock.fileno())
        self._channel.close()
        call, self._call = self._call, None
        if call is not None and not call.done():
            call.set_exception(WorkerLostError(asked=True, late=self._late))
        self._reap(patience_s=1.0)

    def _reap(self, patience_s: float) -> None:
        if self._process.poll() is None:
            if patience_s <= 0.0:
                self._process.kill()
            self._loop.call_later(_REAP_INTERVAL_S, self._reap, patience_s - _REAP_INTERVAL_S)
            return
        self.exited.set_result(None)
        self._on_exit(self)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _command(descriptor: int, options: dict[str, Any]) -> list[str]:
    # -P: what lies in the working directory is no part of the worker.
    module = "camserve_server.engine.imaging_worker"
    options = options | {"parent_pid": os.getpid()}
    return [sys.executable, "-P", "-m", module, str(descriptor), json.dumps(options)]


def _environment() -> dict[str, str]:
    """Return the whole environment of a worker: none of the server's secrets, one thread, memory given back."""
    return {
        "PYTHONPATH": str(Path(camserve_server.__file__).parent.parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "VIPS_CONCURRENCY": "1",
        "MALLOC_ARENA_MAX": "2",
        # A fixed threshold: by default it grows with the first big picture, whose memory then stays.
        "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(4 << 20),
    }
