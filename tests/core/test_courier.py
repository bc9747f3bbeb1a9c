"""What becomes of events whose endpoint keeps failing, or could not be tried."""

from __future__ import annotations

import asyncio
import time

from tests.clock import FakeClock
from tests.stores.test_outbox import ended_job

from camserve_server.base.ids import new_id
from camserve_server.core.courier import Courier
from camserve_server.outbound.client import FetchError, Reply, UntriedError
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

DEAD, GOOD = "https://dead.example/", "https://good.example/"


class Client:
    """Sends to nobody: one endpoint does not answer while it is told not to, in the way that it is told."""

    def __init__(self, error=FetchError):
        self.works = False
        self.error = error
        self.asked = asyncio.Queue()

    async def post(self, url, body, headers, *, timeout_s, tenant):
        self.asked.put_nowait((url, headers["x-event-id"]))
        if url == DEAD and not self.works:
            raise self.error
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


async def test_attempts_that_could_not_be_made_are_given_back_and_say_nothing_of_the_endpoint(redis, tmp_path):
    sealer = Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")
    outbox = Outbox(redis)
    jobs, webhooks = Jobs(redis, sealer, Disk(), outbox), Webhooks(redis, sealer, Disk())
    client, webhook = Client(UntriedError), new_id("webhook")
    await webhooks.create("a", webhook, DEAD, [], b"secret", now_ms=int(time.time() * 1000))
    events = [f"evt_{number}" for number in range(8)]
    for event in events:
        await outbox.send("a", webhook, event, event="webhook.test", job_id="job_a")
    # Its clock stands: an endpoint that was passed over would be so for good.
    courier = Courier(outbox, webhooks, None, jobs, client, FakeClock(time.time()), prefix="", pause_s=600)
    courier.start()
    async with asyncio.timeout(60):
        await client.of(8)
        client.works = True
        await client.of(8)
    await courier.stop(5)
    for event in events:
        delivery = await outbox.delivery("a", webhook, event)
        assert (delivery.status, delivery.attempts) == ("delivered", 1)
