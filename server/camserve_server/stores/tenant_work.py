"""What each tenant has under way, for whoever watches the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.cluster import primaries
from camserve_server.stores.redis import text, unavailable_on_error

_MOST_TENANTS = 1_000


@dataclass(frozen=True, slots=True)
class TenantWork:
    """A tenant's calls under way, and its items of jobs that wait and that are under way."""

    name: str
    calls: int
    queued: int
    running: int


async def read_tenant_work(redis: Redis) -> list[TenantWork]:
    """Returns the tenants that have something under way, those with most first.

    Of more than 1,000 with jobs those are looked at whose turns come first. Raises ApiError(STORE_UNAVAILABLE).
    """
    with unavailable_on_error():
        turns: list[Any] = await redis.zrange(keys.ring_turns(), 0, _MOST_TENANTS - 1)
        names = {text(name) for name in turns}
        for server in await primaries(redis):
            async for key in server.scan_iter(match=keys.every_running(), count=1000):
                names.add(keys.tenant_of(text(key)))
        now_s, now_us = await redis.time()
        ordered = sorted(names)
        pipe = redis.pipeline(transaction=False)
        for name in ordered:
            pipe.zcount(keys.running(name), now_s * 1000 + now_us // 1000, "+inf")
            pipe.llen(keys.job_queue(name))
            pipe.zcard(keys.job_leases(name))
        counts = await pipe.execute() if ordered else []
    found = [TenantWork(name, *counts[3 * at : 3 * at + 3]) for at, name in enumerate(ordered)]
    return sorted(found, key=lambda work: (-work.calls - work.running, -work.queued, work.name))
