"""Keeps the metrics of what waits in Redis up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import (
    JOB_ITEMS_QUEUED,
    JOB_ITEMS_RUNNING,
    JOB_OLDEST_SECONDS,
    JOB_TENANTS,
    WEBHOOK_OVERDUE_SECONDS,
)
from camserve_server.stores.backlog import Backlog

_LOOK_INTERVAL_S = 5.0


class BacklogWatch:
    """Looks every five seconds. Each replica that does says the same, of the whole service."""

    def __init__(self, read: Callable[[], Awaitable[Backlog]]) -> None:
        self._read = read
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._looking = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """Ends at once."""
        if self._looking:
            await ended([self._looking])

    async def _look(self) -> None:
        while True:
            # While Redis does not answer the last figures stay; that it does not has metrics of its own.
            with suppress(ApiError):
                backlog = await self._read()
                JOB_ITEMS_QUEUED.set(backlog.items_queued)
                JOB_ITEMS_RUNNING.set(backlog.items_running)
                JOB_TENANTS.set(backlog.tenants)
                JOB_OLDEST_SECONDS.set(backlog.oldest_item_s)
                WEBHOOK_OVERDUE_SECONDS.set(backlog.overdue_event_s)
            await asyncio.sleep(_LOOK_INTERVAL_S)
