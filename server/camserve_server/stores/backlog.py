"""What waits in Redis, of all tenants together: items of jobs, and events for webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.redis import text, unavailable_on_error

# Those whose turn is longest ago. A look at more of them would be long, and says little more.
_MOST_TENANTS = 1_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """Items that wait and that are under way, tenants with either; seconds since the oldest waiting item was accepted,
    and since the event that is most overdue should have been sent, each 0 while nothing waits.
    """

    items_queued: int
    items_running: int
    tenants: int
    oldest_item_s: float
    overdue_event_s: float


async def read_backlog(redis: Redis) -> Backlog:
    """Returns what waits now; of more than 1,000 tenants with items those are counted whose turns come first.

    The oldest item is that at the front of its tenant's queue. Raises ApiError(STORE_UNAVAILABLE).
    """
    with unavailable_on_error():
        pipe = redis.pipeline(transaction=False)
        pipe.zrange(keys.ring_turns(), 0, _MOST_TENANTS - 1)
        pipe.zcard(keys.ring_turns())
        pipe.zrange(keys.ring_outbox_tenants(), 0, 0, withscores=True)
        pipe.time()
        members, n_tenants, overdue, (now_s, now_us) = await pipe.execute()
        now_ms = now_s * 1000 + now_us / 1000
        tenants = [text(member) for member in members]
        pipe = redis.pipeline(transaction=False)
        for tenant in tenants:
            pipe.llen(keys.job_queue(tenant))
            pipe.zcard(keys.job_leases(tenant))
            pipe.lindex(keys.job_queue(tenant), 0)
        counts: list[Any] = await pipe.execute() if tenants else []
        pipe = redis.pipeline(transaction=False)
        fronts = [(tenant, text(front)) for tenant, front in zip(tenants, counts[2::3], strict=True) if front]
        for tenant, front in fronts:
            pipe.hget(keys.job(tenant, front.rpartition(":")[0]), "submitted_ms")
        submitted = [int(each) for each in (await pipe.execute() if fronts else []) if each]
    return Backlog(
        items_queued=sum(counts[0::3]),
        items_running=sum(counts[1::3]),
        tenants=n_tenants,
        oldest_item_s=max(0.0, now_ms - min(submitted)) / 1000 if submitted else 0.0,
        overdue_event_s=max(0.0, now_ms - float(overdue[0][1])) / 1000 if overdue else 0.0,
    )
