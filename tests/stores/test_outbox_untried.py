"""Events that were taken to be sent and could not be: nothing became known of their endpoint."""

from __future__ import annotations

import pytest
from tests.clock import FakeClock
from tests.stores.test_jobs import NOW

from camserve_server.base.ids import new_id
from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

LEASE = 30_000


@pytest.fixture
def outbox(redis):
    return Outbox(redis)


@pytest.fixture
def webhooks(redis, tmp_path):
    return Webhooks(redis, Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any"), Disk())


@pytest.fixture
async def webhook(outbox, webhooks):
    """A webhook with five events."""
    webhook_id = new_id("webhook")
    await webhooks.create("a", webhook_id, "https://hooks.example/a", (), b"secret", now_ms=NOW)
    for number in range(5):
        await outbox.send("a", webhook_id, f"evt_{number}", event="webhook.test", job_id="job_a", now_ms=NOW)
    return webhook_id


async def test_it_is_due_after_the_pause_with_the_attempt_it_had(outbox, webhook):
    taken = await outbox.take(1, lease_ms=LEASE, now_ms=NOW)
    await outbox.finish(taken[0], "again", answered=500, pause_ms=0, now_ms=NOW)
    (second,) = await outbox.take(1, lease_ms=LEASE, now_ms=NOW)
    assert (second.event_id, second.number) == (taken[0].event_id, 2)
    assert await outbox.finish(second, "untried", pause_ms=2_000, now_ms=NOW)
    record = await outbox.delivery("a", webhook, second.event_id)
    assert (record.status, record.attempts, record.last_status, record.next_ms) == ("pending", 1, 500, NOW + 2_000)
    now = await outbox.take(9, lease_ms=LEASE, now_ms=NOW + 1_999)
    assert second.event_id not in [one.event_id for one in now]
    for one in now:
        await outbox.finish(one, "delivered", now_ms=NOW + 1_999)
    later = await outbox.take(9, lease_ms=LEASE, now_ms=NOW + 2_000)
    assert (second.event_id, 2) in [(one.event_id, one.number) for one in later]


async def test_its_endpoint_fails_no_more_and_no_less_than_before(outbox, webhook):
    for _ in range(3):
        for one in await outbox.take(4, lease_ms=LEASE, now_ms=NOW):
            await outbox.finish(one, "untried", now_ms=NOW)
    taken = await outbox.take(9, lease_ms=LEASE, now_ms=NOW)
    assert len(taken) == 4
    for one in taken:
        await outbox.finish(one, "again", now_ms=NOW)
    (only,) = await outbox.take(9, lease_ms=LEASE, now_ms=NOW)
    await outbox.finish(only, "untried", now_ms=NOW)
    assert len(await outbox.take(9, lease_ms=LEASE, now_ms=NOW)) == 1


async def test_it_is_given_up_with_the_rest_of_a_webhook_that_was_disabled_meanwhile(outbox, webhooks, redis):
    webhook_id = new_id("webhook")
    await webhooks.create("a", webhook_id, "https://hooks.example/a", (), b"secret", now_ms=NOW)
    for number in range(2):
        await outbox.send("a", webhook_id, f"evt_{number}", event="webhook.test", job_id="job_a", now_ms=NOW)
        # As the end of a job makes it: nobody asked for it by name.
        await redis.hdel(keys.delivery("a", webhook_id, f"evt_{number}"), "asked")
    first, second = await outbox.take(2, lease_ms=LEASE, now_ms=NOW)
    await outbox.finish(first, "gone", answered=410, now_ms=NOW)
    await outbox.finish(second, "untried", now_ms=NOW)
    assert (await outbox.delivery("a", webhook_id, second.event_id)).status == "dead"
