"""The queue of jobs alone, without any picture: how many items a second it hands out and takes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from camserve_server.base.clock import SystemClock
from camserve_server.base.ids import new_id
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue, Outcome
from camserve_server.stores.jobs import Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.redis import connect
from camserve_server.stores.sealing import Sealer

_ITEMS_PER_JOB = 100
_WORKERS, _WIDTH = 4, 16
# About what a worker needs to know of an image, and what it has to say of one.
_SPEC, _RESULT = b"x" * 300, b"y" * 600
_TENANT = "benchmark"


@dataclass(frozen=True, slots=True)
class QueueFigure:
    """One measurement: items that were queued, and how many a second were accepted, and claimed and finished."""

    items: int
    submitted_per_s: float
    finished_per_s: float


def measure_queue(folder: Path, sizes: Sequence[int]) -> list[QueueFigure]:
    """Fills the queue of an embedded Valkey, each write on the disk, and empties it, once for each size."""
    return uvloop.run(_measure(folder, sizes))


async def _measure(folder: Path, sizes: Sequence[int]) -> list[QueueFigure]:
    folder.mkdir(parents=True)
    valkey = EmbeddedValkey(folder)
    redis = connect(await valkey.start())
    sealer = Sealer(KeyRing(folder / "keys.json", clock=SystemClock()), "job")
    jobs, queue = Jobs(redis, sealer, Disk(), Outbox(redis)), JobQueue(redis, sealer, Outbox(redis))
    try:
        return [await _filled_and_emptied(jobs, queue, size) for size in sizes]
    finally:
        await redis.aclose()
        await valkey.stop()


async def _filled_and_emptied(jobs: Jobs, queue: JobQueue, size: int) -> QueueFigure:
    started = time.perf_counter()
    for _ in range(size // _ITEMS_PER_JOB):
        items = [NewItem(str(index), _SPEC) for index in range(_ITEMS_PER_JOB)]
        await jobs.submit(_TENANT, NewJob(new_id("job"), "shapes", "1", 3_600_000, None, items))
    filled = time.perf_counter()
    finished = sum(await asyncio.gather(*(_work(queue, f"worker{number}") for number in range(_WORKERS))))
    if finished != size:
        raise ValueError(f"{finished} of {size} items were finished")
    return QueueFigure(size, size / (filled - started), size / (time.perf_counter() - filled))


async def _work(queue: JobQueue, worker: str) -> int:
    finished = 0
    while turn := await queue.next_turn(worker, width=_WIDTH, items_per_s=1):
        claims = await queue.claim(turn, _WIDTH, lease_ms=60_000, most_leases=_WORKERS * _WIDTH)
        if not claims:
            break
        finished += sum(await queue.finish(_TENANT, [Outcome(claim, "s", _RESULT) for claim in claims]))
    return finished
