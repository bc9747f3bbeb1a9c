"""What lies before a new item in the queue of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio.client import Pipeline

from camserve_server.stores import keys

# A worker that lives says so every second.
_WORKER_ABSENT_MS = 5_000


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a tenant's newest item waits behind: its items with itself, tenants with work, items/s of all workers."""

    items: int
    tenants: int
    items_per_s: float


def ask_tenant(pipe: Pipeline, tenant: str) -> None:
    """Asks for the first two replies that `told` takes."""
    pipe.llen(keys.job_queue(tenant))
    pipe.zcard(keys.job_leases(tenant))


def ask_ring(pipe: Pipeline) -> None:
    """Asks for the last three replies that `told` takes."""
    pipe.zcard(keys.ring_turns())
    pipe.hvals(keys.ring_workers())
    pipe.time()


def told(waiting: int, leased: int, tenants: int, workers: list[Any], clock: tuple[int, int]) -> Pressure:
    """Returns what the replies say."""
    rows = [[int(part) for part in row.split()] for row in workers]
    paces = [pace / 1000 for seen_ms, _, pace in rows if clock[0] * 1000 - seen_ms <= _WORKER_ABSENT_MS]
    return Pressure(waiting + leased, tenants, sum(paces))
