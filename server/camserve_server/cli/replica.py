"""One of the replicas of a stack: its own settings, its process, its log."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from camserve_server.base.child import Child, start_child
from camserve_server.base.config import PREFIX, Settings
from camserve_server.base.cores import cores
from camserve_server.base.errors import OperatorError
from camserve_server.cli.logs import lines_since, open_log

_HEALTHY_WITHIN_S = 120.0
_MIB = 1024 * 1024


class ReplicaError(OperatorError):
    """A replica cannot run; the message says why and where to look."""


class ReplicaProcess:
    """The replica `number` of the `settings.replica_count` here, counted from 0.

    After an exit that nobody asked for `start` may be called again.
    """

    def __init__(self, settings: Settings, number: int) -> None:
        self._settings = settings
        self._number = number
        self._ready_file = settings.data_dir / "run" / f"replica-{number + 1}.json"
        self._log = settings.data_dir / "logs" / (f"server-{number + 1}.log" if number else "server.log")
        self._child: Child | None = None

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"replica {self._number + 1}"

    async def start(self, redis_url: str) -> None:
        """Returns once it is healthy; raises ReplicaError when it ends instead or is not healthy in time."""
        # Its own word, not a look at the port: another server may be listening there.
        self._ready_file.unlink(missing_ok=True)
        own = {"redis_url": redis_url, "ready_file": self._ready_file, **own_settings(self._settings, self._number)}
        output, seen_bytes = open_log(self._log)
        try:
            self._child = await start_child(
                [sys.executable, "-m", "camserve_server.cli.app", "serve"],
                grace_s=self._settings.lame_duck_s + self._settings.drain_s + 5,
                output=output,
                environment=self._settings.environment()
                | {PREFIX + name.upper(): str(value) for name, value in own.items()},
            )
        finally:
            os.close(output)
        healthy = asyncio.create_task(_exists(self._ready_file))
        ended = asyncio.create_task(self._child.wait())
        try:
            await asyncio.wait([healthy, ended], timeout=_HEALTHY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            if healthy.done() and not healthy.cancelled():
                return
            if not ended.done():
                await self._child.stop()
                raise ReplicaError(f"the server was not healthy within {_HEALTHY_WITHIN_S:g} s; see {self._log}")
        finally:
            for task in (healthy, ended):
                task.cancel()
        last = next(reversed(lines_since(self._log, seen_bytes)), "it wrote no message")
        raise ReplicaError(f"the server ended while it started: {last}; see {self._log}")

    async def exited(self) -> int:
        """Returns the exit status once it has ended, by `stop` or by itself."""
        if self._child is None:
            raise RuntimeError(f"{self.name} has not been started")
        return await self._child.wait()

    async def stop(self) -> None:
        """Drains it and returns when its process is gone."""
        if self._child is not None:
            await self._child.stop()


def own_settings(settings: Settings, number: int) -> dict[str, object]:
    """Returns in which settings a replica differs from the stack's: its ports, and its share of the machine.

    What was set is meant for each replica; only defaults are divided.
    """
    count = settings.replica_count
    own: dict[str, object] = {"replica_count": 1, **settings.replica_ports(number)}
    if count == 1:
        # Where the edge has nowhere else to send calls, it stops at the same time.
        return own if settings.replicas else own | {"lame_duck_s": 0}
    if settings.torch_threads is None:
        own["torch_threads"] = max(1, cores() // count)
    if "imaging_workers" not in settings.model_fields_set:
        own["imaging_workers"] = max(1, settings.imaging_workers // count)
    if "upload_memory_mb" not in settings.model_fields_set:
        least_mb = max(128, -(-settings.max_image_bytes // _MIB))
        own["upload_memory_mb"] = max(least_mb, settings.upload_memory_mb // count)
    return own


async def _exists(path: Path) -> None:
    while not path.exists():
        await asyncio.sleep(0.02)
