"""The janitor: removes what expired and mends what a crash left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import JOBS_DUE, OBJECTS_EXPIRED
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.objects import ObjectStore
from camserve_server.stores.outbox import Outbox

_log = structlog.get_logger("janitor")
_JOBS_INTERVAL_S = 2.0
# Of jobs that are due, in a round: some hundred a second, so that they do not become more and more.
_PAGE, _MOST_PAGES = 100, 10


class Janitor:
    """Sweeps in rounds, each kind on its own. Any number of replicas may do so at once."""

    def __init__(
        self, objects: ObjectStore, jobs: Jobs, outbox: Outbox, clock: Clock, *, objects_interval_s: float
    ) -> None:
        self._objects = objects
        self._jobs = jobs
        self._outbox = outbox
        self._clock = clock
        self._objects_interval_s = objects_interval_s
        self._rounds: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins to sweep."""
        self._rounds = [
            asyncio.create_task(_repeat(self._remove_objects, self._objects_interval_s)),
            asyncio.create_task(_repeat(self._expire_jobs, _JOBS_INTERVAL_S)),
            asyncio.create_task(_repeat(self._jobs.mend_ring, _JOBS_INTERVAL_S)),
            asyncio.create_task(_repeat(self._outbox.mend, _JOBS_INTERVAL_S)),
        ]

    async def stop(self) -> None:
        """Ends at once: an unfinished round is finished by the next."""
        await ended(self._rounds)

    async def _remove_objects(self) -> None:
        OBJECTS_EXPIRED.inc(await self._objects.remove_expired())

    async def _expire_jobs(self) -> None:
        for _ in range(_MOST_PAGES):
            due = await self._jobs.expire_due(now_ms=round(self._clock.now() * 1000), limit=_PAGE)
            JOBS_DUE.inc(due)
            if due < _PAGE:
                return


async def _repeat(sweep: Callable[[], Awaitable[object]], interval_s: float) -> None:
    while True:
        try:
            await sweep()
        except ApiError:
            _log.exception("the janitor failed; it tries again", sweep=sweep.__qualname__)
        await asyncio.sleep(interval_s)
