"""How many calls are open, whatever they do: send slowly, read slowly, or watch."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from camserve_server.base.errors import ApiError, Reason

# Of one public method at once; a message that is there already takes a place for a moment only.
_STRANGERS = 256
# Single messages on their way: each may be an image, is in memory as far as it came, and nobody sees how far that is.
_ARRIVING_OF_TENANT = 16
_PLACE_WITHIN_S = 5.0
# Those that are long in coming, of all tenants.
_LATE = 64


class OpenCalls:
    """Bounds what one tenant, or callers without a token, can hold of the connections and memory that all share."""

    def __init__(self, most_of_tenant: int) -> None:
        self._most = most_of_tenant
        self._tenants: Counter[str] = Counter()
        self._strangers: dict[str, dict[asyncio.Future[None], None]] = {}
        self._arriving: dict[str, asyncio.Semaphore] = {}
        self._near: Counter[str] = Counter()
        self._late: dict[str, list[asyncio.Future[None]]] = {}

    @contextmanager
    def of_tenant(self, tenant: str) -> Iterator[None]:
        """Counts a call for as long as it is open; raises ApiError(CONCURRENCY_EXCEEDED) for one too many."""
        if self._tenants[tenant] >= self._most:
            raise ApiError(
                Reason.CONCURRENCY_EXCEEDED,
                "Too many calls of the tenant are open, watching or half sent.",
                limit=self._most,
            )
        with _counted(self._tenants, tenant):
            yield

    @contextmanager
    def of_stranger(self, method: str) -> Iterator[asyncio.Future[None]]:
        """Counts a call to a public method until its message is there.

        The future that it gives is done when the call has to make room: where there are too many, the oldest, since who
        means no harm sends his message at once.
        """
        waiting = self._strangers.setdefault(method, {})
        if len(waiting) >= _STRANGERS:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.set_result(None)
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting[room] = None
        try:
            yield room
        finally:
            waiting.pop(room, None)

    @asynccontextmanager
    async def of_arriving(self, tenant: str) -> AsyncIterator[None]:
        """Waits for one of the tenant's few places for single messages on their way.

        Until then the message is not asked for, so that the caller's sending stands still. Raises
        ApiError(CONCURRENCY_EXCEEDED) when no place is free within 5 s.
        """
        places = self._arriving.setdefault(tenant, asyncio.Semaphore(_ARRIVING_OF_TENANT))
        with _counted(self._near, tenant):
            try:
                await _place(places)
                try:
                    yield
                finally:
                    places.release()
            finally:
                if self._near[tenant] == 1:
                    del self._arriving[tenant]

    @contextmanager
    def of_late(self, tenant: str) -> Iterator[asyncio.Future[None]]:
        """Counts a single message that is long in coming; `tenant` is empty for strangers.

        The future that it gives is done when the message has to make room: where there are too many, the newest of
        whoever has most of them. Raises ApiError(SERVICE_OVERLOADED) when that is this tenant.
        """
        if sum(map(len, self._late.values())) >= _LATE:
            crowd = max(self._late.values(), key=len)
            if len(crowd) <= len(self._late.get(tenant, ())) + 1:
                raise ApiError(Reason.SERVICE_OVERLOADED)
            crowd.pop().set_result(None)
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        own = self._late.setdefault(tenant, [])
        own.append(room)
        try:
            yield room
        finally:
            if room in own:
                own.remove(room)
            if not own:
                self._late.pop(tenant, None)


async def _place(places: asyncio.Semaphore) -> None:
    try:
        async with asyncio.timeout(_PLACE_WITHIN_S):
            await places.acquire()
    except TimeoutError:
        raise ApiError(
            Reason.CONCURRENCY_EXCEEDED,
            "Too many messages of the tenant are half sent: large images go as streams.",
            limit=_ARRIVING_OF_TENANT,
        ) from None


@contextmanager
def _counted(counts: Counter[str], name: str) -> Iterator[None]:
    counts[name] += 1
    try:
        yield
    finally:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]
