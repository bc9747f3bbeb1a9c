"""An endpoint that keeps failing is passed over: its events keep their attempts, and others go out."""

from __future__ import annotations

import asyncio
import time

from tests.clock import FakeClock
from tests.stores.test_outbox import ended_job

from camserve_server.base.ids import new_id
from camserve_server.core.courier import Courier
from camserve_server.outbound.client import FetchError, Reply
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

DEAD, GOOD = "https://dead.example/", "https://good.example/"


class Client:
    """Sends to nobody: one endpoint does not answer while it is told not to."""

    def __init__(self):
        self.works = False
        self.asked = asyncio.Queue()

    async def post(self, url, body, headers, *, timeout_s, tenant):
        self.asked.put_nowait((url, headers["x-event-id"]))
        if url == DEAD and not self.works:
            raise FetchError
        return Reply(204, None)

    async def of(self, count):
        """Returns the next calls, in no order."""
        return sorted([(await self.asked.get())[0] for _ in range(count)])


async def test_an_endpoint_that_keeps_failing_is_passed_over_and_tried_again(redis, tmp_path):
    courier_clock = FakeClock(time.time())
    sealer = Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")
    outbox = Outbox(redis)
    jobs, webhooks = Jobs(redis, sealer, Disk(), outbox), Webhooks(redis, sealer, Disk())
    queue, client, dead = JobQueue(redis, sealer, outbox), Client(), new_id("webhook")
    now_ms = int(time.time() * 1000)
    for webhook_id, url in ((dead, DEAD), (new_id("webhook"), GOOD)):
        await webhooks.create("a", webhook_id, url, [], b"secret", now_ms=now_ms)
    courier = Courier(outbox, webhooks, None, jobs, client, courier_clock, prefix="", pause_s=600)
    courier.start()
    for _ in range(3):
        await ended_job(jobs, queue, at=now_ms)
        assert await client.of(2) == [DEAD, GOOD]
    last = await ended_job(jobs, queue, at=now_ms)
    assert await client.of(1) == [GOOD]
    # The other one's turn has come and gone once more.
    await ended_job(jobs, queue, at=now_ms)
    assert await client.of(1) == [GOOD]
    delivery = await outbox.delivery("a", dead, f"evt{last[3:]}")
    assert (delivery.status, delivery.attempts) == ("pending", 0)
    client.works = True
    courier_clock.advance(1)
    assert await client.of(2) == [DEAD, DEAD]
    await courier.stop(5)
    delivery = await outbox.delivery("a", dead, f"evt{last[3:]}")
    assert (delivery.status, delivery.attempts) == ("delivered", 1)
