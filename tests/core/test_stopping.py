"""A worker or courier that stops while the store answers a claim: what it claimed must not wait for a lease to end."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
from tests.clock import FakeClock
from tests.stores.test_outbox import ended_job, registered

from camserve_server.base.clock import SystemClock
from camserve_server.base.ids import new_id
from camserve_server.core.courier import Courier
from camserve_server.core.infer_options import InferOptions
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.job_worker import JobWorker
from camserve_server.core.stored_results import encode_options
from camserve_server.outbound.client import GuardedClient
from camserve_server.outbound.targets import Allowed
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

LATE_S = 0.3


class LateQueue(JobQueue):
    """Leases at once, and says so late."""

    def __init__(self, *parts):
        super().__init__(*parts)
        self.claimed = asyncio.Event()

    async def claim(self, *args, **options):
        claims = await super().claim(*args, **options)
        self.claimed.set()
        await asyncio.sleep(LATE_S)
        return claims


class LateOutbox(Outbox):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.taken = asyncio.Event()
        self.sent = []

    async def take(self, *args, **options):
        attempts = await super().take(*args, **options)
        if attempts:
            self.taken.set()
            await asyncio.sleep(LATE_S)
        return attempts

    async def finish(self, attempt, *args, **options):
        await super().finish(attempt, *args, **options)
        self.sent.append(attempt.event_id)


class AnyModel:
    def check_circuit(self, options):
        pass


class HangingUrls:
    async def open(self, *_):
        await asyncio.Event().wait()


@pytest.fixture
def sealer(tmp_path):
    return Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")


async def test_a_stopping_worker_hands_back_what_it_was_claiming(redis, sealer):
    queue = LateQueue(redis, sealer, Outbox(redis))
    spec = orjson.dumps({"options": encode_options(InferOptions("shapes")), "url": "https://hangs.example/a"})
    items = [NewItem(f"i{n}", spec) for n in range(3)]
    await Jobs(redis, sealer, Disk(), Outbox(redis)).submit(
        "a", NewJob(new_id("job"), "shapes", "2", 3_600_000, None, items)
    )
    worker = JobWorker(
        queue,
        AnyModel(),
        None,
        SystemClock(),
        width=8,
        lease_s=600,
        urls=HangingUrls(),
        warm=None,
        budget=None,
        changes=JobChanges(),
    )
    worker.start()
    await queue.claimed.wait()
    await worker.stop(0)
    turn = await queue.next_turn("another", width=8, items_per_s=1.0)
    assert len(await queue.claim(turn, 8, lease_ms=1000, most_leases=8)) == 3


async def test_a_stopping_courier_sends_what_it_was_taking(redis, sealer):
    outbox = LateOutbox(redis)
    jobs, webhooks = Jobs(redis, sealer, Disk(), outbox), Webhooks(redis, sealer, Disk())
    now_ms = int(time.time() * 1000)
    await registered(webhooks, at=now_ms)
    job_id = await ended_job(jobs, JobQueue(redis, sealer, outbox), at=now_ms)
    client = GuardedClient(Allowed.parse([]))
    courier = Courier(outbox, webhooks, None, jobs, client, SystemClock(), prefix="", pause_s=1)
    courier.start()
    await outbox.taken.wait()
    await courier.stop(5)
    await client.close()
    assert outbox.sent == [f"evt{job_id[3:]}"]
