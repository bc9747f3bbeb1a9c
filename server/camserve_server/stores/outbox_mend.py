"""What mends the ring of the outbox, a part at a time."""

from __future__ import annotations

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.redis import unavailable_on_error
from camserve_server.stores.scripts import Run, Script
from camserve_server.stores.tenant_walk import TenantWalk

# An endpoint that a courier put off, or that waits for its leases, is not overlooked.
_LATE_MS = 35_000
# What a round looks at, about. At one every 2 s it comes by each of a tenant's 80,000 endpoints every three minutes.
_MOST_ENDPOINTS, _MOST_TENANTS = 1_000, 500
# Of a few tenants at once, because most have nothing; more would be a long reply where each has a hundred.
_PAGE, _TENANTS = 100, 10

PAGE_OF = Script("outbox_page", after=["clock", "outbox"])
_MEND = Script("outbox_mend", after=["clock", "outbox_ring"])


class OutboxMender:
    """Announces endpoints whose place in the ring is missing, or later than their events, in rounds.

    A round looks at a bounded number of them, however many there are, and the next one goes on from there. Each tenant
    has its turn before those with many endpoints get the rest of the round: nobody waits for theirs.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._walk = TenantWalk(redis)
        self._walk_over = False
        # Whose turn is next, and of tenants with endpoints left where to go on.
        self._tenants: list[str] = []
        self._cursors: dict[str, bytes] = {}

    async def round(self) -> int:
        """Returns how many were announced. The walk through the tenants goes on in the next round, or begins anew.

        Raises ApiError(STORE_UNAVAILABLE); the next round begins where that was.
        """
        looked = asked = mended = 0
        unfinished: list[str] = []
        while looked < _MOST_ENDPOINTS // 2 and asked < _MOST_TENANTS:
            if not self._tenants:
                self._tenants, self._walk_over = await self._walk.page()
            some = self._tenants[:_TENANTS]
            seen, announced = await self._look(some)
            self._tenants = self._tenants[_TENANTS:]
            looked, asked, mended = looked + seen, asked + len(some), mended + announced
            unfinished += [tenant for tenant in some if tenant in self._cursors]
            if self._walk_over and not self._tenants:
                break
        while looked < _MOST_ENDPOINTS and unfinished:
            some = unfinished[:_TENANTS]
            seen, announced = await self._look(some)
            looked, mended = looked + seen, mended + announced
            unfinished = unfinished[_TENANTS:] + [tenant for tenant in some if tenant in self._cursors]
        return mended

    async def _look(self, tenants: list[str]) -> tuple[int, int]:
        """Looks at a page of endpoints, shared by these tenants; returns how many it saw and how many it announced."""
        if not tenants:
            return 0, 0
        count = _PAGE // len(tenants)
        runs: list[Run] = [([keys.tenant(tenant)], [self._cursors.get(tenant, b"0"), count]) for tenant in tenants]
        found, cursors = [], []
        with unavailable_on_error():
            for tenant, (cursor, *page) in zip(tenants, await PAGE_OF.run_each(self._redis, runs), strict=True):
                cursors.append(cursor)
                for endpoint, due_ms in zip(page[::2], page[1::2], strict=True):
                    found += [b"%b %b" % (endpoint, tenant.encode()), due_ms]
            mended = await _MEND.run(self._redis, [keys.ring()], [_LATE_MS, *found]) if found else 0
        for tenant, cursor in zip(tenants, cursors, strict=True):
            if cursor == b"0":
                self._cursors.pop(tenant, None)
            else:
                self._cursors[tenant] = cursor
        return len(found) // 2, mended
