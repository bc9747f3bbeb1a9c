"""The end of many jobs, told to a receiver that is away for a while: does every event arrive, and when."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from camserve_server.base.clock import SystemClock
from camserve_server.base.ids import new_id
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.core.courier import Courier
from camserve_server.core.cursors import Cursors
from camserve_server.core.webhooks import WebhookService
from camserve_server.outbound.client import GuardedClient
from camserve_server.outbound.targets import Allowed
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue, Outcome
from camserve_server.stores.jobs import Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.redis import connect
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

_TENANT = "benchmark"
_PAUSE_S = 15.0
# An event whose fourth attempt came just before the end waits for its fifth up to 960 s and a fifth of that.
_GIVE_UP_S = 1_800.0
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Outage:
    """One measurement: events that were due while nobody listened, and how they arrived after that."""

    events: int
    outage_s: float
    lost: int
    copies: int
    most_attempts: int
    all_arrived_s: float


@dataclass(slots=True)
class _Receiver:
    port: int = 0
    came: Counter[str] = field(default_factory=Counter)
    server: asyncio.Server | None = None

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=256)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self.server:
            self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        pairs = (line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        await reader.readexactly(int(headers["content-length"]))
        self.came[headers["x-event-id"]] += 1
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()


def measure_outage(folder: Path, events: int, outage_s: float, compressed: float) -> Outage:
    """Ends `events` jobs while the receiver refuses connections for `outage_s`.

    The pauses between attempts are `compressed` times shorter than by default.
    """
    return uvloop.run(_measure(folder, events, outage_s, compressed))


async def _measure(folder: Path, events: int, outage_s: float, compressed: float) -> Outage:
    folder.mkdir(parents=True)
    clock = SystemClock()
    valkey = EmbeddedValkey(folder)
    redis = connect(await valkey.start())
    ring = KeyRing(folder / "keys.json", clock=clock)
    outbox = Outbox(redis)
    jobs, queue = Jobs(redis, Sealer(ring, "job"), Disk(), outbox), JobQueue(redis, Sealer(ring, "job"), outbox)
    webhooks = Webhooks(redis, Sealer(ring, "webhook"), Disk())
    receiver = _Receiver()
    await receiver.open()
    receiver.close()
    client = GuardedClient(Allowed.parse([f"127.0.0.1/32:{receiver.port}"]))
    service = WebhookService(webhooks, outbox, client, Cursors(Sealer(ring, "cursor")), Sealer(ring, "secret"))
    courier = Courier(
        outbox, webhooks, service, jobs, client, clock, prefix="http://127.0.0.1", pause_s=_PAUSE_S / compressed
    )
    try:
        made = await service.create(_TENANT, f"http://127.0.0.1:{receiver.port}/", ())
        courier.start()
        away = asyncio.create_task(asyncio.sleep(outage_s))
        expected = await _ended_jobs(jobs, queue, events)
        await away
        started = time.monotonic()
        await receiver.open()
        while expected - receiver.came.keys() and time.monotonic() - started < _GIVE_UP_S:
            await asyncio.sleep(0.1)
        arrived_s = time.monotonic() - started
        attempts = [
            record.attempts
            for event_id in expected
            if (record := await outbox.delivery(_TENANT, made.webhook.webhook_id, event_id))
        ]
        return Outage(
            events,
            outage_s,
            len(expected - receiver.came.keys()),
            receiver.came.total() - len(receiver.came),
            max(attempts),
            arrived_s,
        )
    finally:
        await courier.stop(10)
        receiver.close()
        await client.close()
        await redis.aclose()
        await valkey.stop()


async def _ended_jobs(jobs: Jobs, queue: JobQueue, count: int) -> set[str]:
    """Submits and finishes jobs of one item; returns the ids of their events."""
    job_ids = [new_id("job") for _ in range(count)]
    for job_id in job_ids:
        await jobs.submit(_TENANT, NewJob(job_id, "shapes", "1", _HOUR_MS, None, [NewItem("only", os.urandom(100))]))
        turn = await queue.next_turn("worker", width=16, items_per_s=1)
        if turn:
            claims = await queue.claim(turn, 16, lease_ms=60_000, most_leases=16)
            await queue.finish(_TENANT, [Outcome(claim, "s", b"result") for claim in claims])
    return {f"evt{job_id.removeprefix('job')}" for job_id in job_ids}
