from __future__ import annotations

import pytest
from tests.stores.test_jobs import NOW, TTL, claim, finish

from camserve_server.base.ids import new_id
from camserve_server.stores import keys
from camserve_server.stores.jobs import NewItem, NewJob
from camserve_server.stores.outbox import origin_of
from camserve_server.stores.webhooks import MOST_WEBHOOKS, ROTATION_MS

LEASE = 30_000
URL = "https://hooks.example/a"


async def registered(webhooks, *events, tenant="a", at=NOW):
    webhook_id = new_id("webhook")
    assert await webhooks.create(tenant, webhook_id, URL, events, b"secret", now_ms=at) == at
    return webhook_id


async def ended_job(jobs, queue, *, tenant="a", state="s", callback_url=None, at=NOW):
    job_id = new_id("job")
    items = [NewItem("only", b"spec")]
    await jobs.submit(tenant, NewJob(job_id, "m", "1", TTL, None, items, callback_url), now_ms=at)
    while not (claims := await claim(queue, at=at)):
        pass  # a tenant without work keeps its place until it was asked
    await finish(queue, claims, state, at=at)
    return job_id


async def take(outbox, at=NOW, count=100):
    """Returns all that is due, of every endpoint."""
    taken = []
    while (some := await outbox.take(count, lease_ms=LEASE, now_ms=at)) is not None:
        taken += some
    return taken


async def test_the_end_of_a_job_is_an_event_for_every_webhook_that_wants_it(outbox, webhooks, jobs, queue):
    everything = await registered(webhooks)
    failures = await registered(webhooks, "job.failed", "job.canceled")
    await registered(webhooks, "job.expired")
    await registered(webhooks, tenant="b")
    good, bad = await ended_job(jobs, queue), await ended_job(jobs, queue, state="f")
    attempts = await take(outbox)
    assert sorted((one.endpoint, one.event, one.job_id) for one in attempts) == sorted(
        [(everything, "job.succeeded", good), (everything, "job.failed", bad), (failures, "job.failed", bad)]
    )
    assert {one.event_id for one in attempts} == {f"evt{good[3:]}", f"evt{bad[3:]}"}
    assert await take(outbox) == []


async def test_canceling_and_expiring_are_events_too(outbox, webhooks, jobs):
    await registered(webhooks)
    canceled, expired = new_id("job"), new_id("job")
    for job_id in (canceled, expired):
        await jobs.submit("a", NewJob(job_id, "m", "1", TTL, None, [NewItem("only", b"spec")]), now_ms=NOW)
    await jobs.cancel("a", canceled, now_ms=NOW)
    await jobs.cancel("a", canceled, now_ms=NOW)
    await jobs.expire_due(now_ms=NOW + TTL)
    seen = {(one.event, one.job_id) for one in await take(outbox, NOW + TTL)}
    assert seen == {("job.canceled", canceled), ("job.expired", expired)}


async def test_a_callback_is_an_endpoint_that_all_jobs_with_its_url_share(redis, outbox, jobs, queue):
    first = await ended_job(jobs, queue, callback_url=URL)
    second = await ended_job(jobs, queue, callback_url=URL)
    attempts = await take(outbox)
    assert {one.job_id for one in attempts} == {first, second}
    assert len({one.endpoint for one in attempts}) == 1
    assert await jobs.callback_url("a", first) == URL
    assert URL.encode() not in b"".join((await redis.hgetall(keys.job("a", first))).values())


async def test_a_delivered_event_is_listed_and_not_sent_again(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    await ended_job(jobs, queue)
    (attempt,) = await take(outbox)
    assert attempt.number == 1
    assert await outbox.finish(attempt, "delivered", answered=204, now_ms=NOW)
    assert not await outbox.finish(attempt, "again", now_ms=NOW)
    assert await take(outbox, NOW + 100 * LEASE) == []
    ((_, record),) = await outbox.page("a", webhook_id, before=None, count=10)
    assert (record.status, record.attempts, record.last_status, record.next_ms) == ("delivered", 1, 204, None)


async def test_a_failed_attempt_is_due_again_after_its_pause(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    await ended_job(jobs, queue)
    (first,) = await take(outbox)
    await outbox.finish(first, "again", answered=500, pause_ms=15_000, now_ms=NOW)
    record = await outbox.delivery("a", webhook_id, first.event_id)
    assert (record.status, record.last_status, record.next_ms) == ("pending", 500, NOW + 15_000)
    assert await take(outbox, NOW + 14_999) == []
    (second,) = await take(outbox, NOW + 15_000)
    assert (second.number, second.event_id) == (2, first.event_id)


async def test_an_attempt_that_nobody_recorded_comes_again_and_its_holder_is_refused(outbox, webhooks, jobs, queue):
    await registered(webhooks)
    await ended_job(jobs, queue)
    (lost,) = await take(outbox)
    assert await take(outbox, NOW + LEASE - 1) == []
    (again,) = await take(outbox, NOW + LEASE)
    assert again.event_id == lost.event_id
    assert not await outbox.finish(lost, "delivered", now_ms=NOW + LEASE)
    assert await outbox.finish(again, "delivered", now_ms=NOW + LEASE)


async def test_an_endpoint_gets_four_at_a_time_and_one_while_it_fails(outbox, webhooks, jobs, queue):
    await registered(webhooks)
    for _ in range(12):
        await ended_job(jobs, queue)
    attempts = await take(outbox)
    assert len(attempts) == 4
    for attempt in attempts:
        await outbox.finish(attempt, "again", pause_ms=10 * LEASE, now_ms=NOW)
    attempts = await take(outbox)
    assert len(attempts) == 1
    await outbox.finish(attempts[0], "delivered", now_ms=NOW)
    assert len(await take(outbox)) == 4


async def test_a_silent_endpoint_takes_no_place_of_another_one(outbox, webhooks, jobs, queue):
    silent = await registered(webhooks, "job.failed")
    other = await registered(webhooks, "job.succeeded")
    for state in "ffffffffss":
        await ended_job(jobs, queue, state=state)
    attempts = await take(outbox)
    assert [one.endpoint for one in attempts].count(silent) == 4
    assert [one.endpoint for one in attempts].count(other) == 2


async def test_gone_disables_the_webhook_and_a_delivery_enables_it_again(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks, "job.succeeded")
    for _ in range(6):
        await ended_job(jobs, queue)
    attempts = await take(outbox)
    await outbox.finish(attempts[0], "gone", answered=410, now_ms=NOW + 5)
    assert (await webhooks.get("a", webhook_id)).disabled_ms == NOW + 5
    assert await take(outbox, NOW + 5) == []
    records = [record.status for _, record in await outbox.page("a", webhook_id, before=None, count=10)]
    assert (records.count("dead"), records.count("pending")) == (3, 3)  # three were under way
    for attempt in attempts[1:]:
        await outbox.finish(attempt, "again", pause_ms=1, now_ms=NOW)
    records = [record.status for _, record in await outbox.page("a", webhook_id, before=None, count=10)]
    assert records == ["dead"] * 6
    await ended_job(jobs, queue)
    assert await take(outbox, NOW + 10) == []
    assert await outbox.send("a", webhook_id, attempts[0].event_id, now_ms=NOW + 10)
    (again,) = await take(outbox, NOW + 10)
    await outbox.finish(again, "delivered", answered=200, now_ms=NOW + 10)
    assert (await webhooks.get("a", webhook_id)).disabled_ms is None
    await ended_job(jobs, queue)
    assert len(await take(outbox, NOW + 10)) == 1
    await ended_job(jobs, queue, state="f")
    assert await take(outbox, NOW + 10) == []


async def test_a_dead_event_is_sent_again_with_all_its_attempts(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    await ended_job(jobs, queue)
    (attempt,) = await take(outbox)
    await outbox.finish(attempt, "dead", answered=500, now_ms=NOW)
    assert await outbox.send("a", webhook_id, attempt.event_id, now_ms=NOW + 1)
    record = await outbox.delivery("a", webhook_id, attempt.event_id)
    assert (record.status, record.attempts, record.last_status) == ("pending", 0, None)
    (again,) = await take(outbox, NOW + 1)
    assert again.number == 1
    assert not await outbox.send("a", webhook_id, "evt_0000000000000000000000")
    assert not await outbox.send("b", webhook_id, attempt.event_id)


async def test_a_new_event_is_sent_once_however_often_it_is_asked_for(outbox, webhooks):
    webhook_id = await registered(webhooks)
    for _ in range(2):
        assert await outbox.send("a", webhook_id, "evt_x", event="webhook.test", job_id="job_x", now_ms=NOW)
    (attempt,) = await take(outbox)
    assert (attempt.event, attempt.job_id) == ("webhook.test", "job_x")
    await outbox.finish(attempt, "delivered", now_ms=NOW)
    await outbox.send("a", webhook_id, "evt_x", event="webhook.test", job_id="job_x", now_ms=NOW)
    assert await take(outbox, NOW + 1) == []


async def test_pages_of_deliveries_are_exact_while_events_come(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    made = [await ended_job(jobs, queue, at=NOW + number // 2) for number in range(7)]
    seen, before = [], None
    while rows := await outbox.page("a", webhook_id, before=before, count=2):
        seen += [record.job_id for _, record in rows]
        before = rows[-1][0]
        await ended_job(jobs, queue, at=NOW + 100)
    assert sorted(seen) == sorted(made)
    assert len(seen) == 7


async def test_pages_of_deliveries_are_exact_while_attempts_end(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    made = [await ended_job(jobs, queue, at=NOW + number) for number in range(6)]
    seen, before, later = [], None, NOW + 1000
    while rows := await outbox.page("a", webhook_id, before=before, count=2):
        seen += [record.job_id for _, record in rows]
        before = rows[-1][0]
        for attempt in await take(outbox, later):
            await outbox.finish(attempt, "delivered", answered=204, now_ms=later)
    assert seen == made[::-1]


async def test_deleting_a_webhook_removes_all_it_had(redis, outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    for _ in range(6):
        await ended_job(jobs, queue)
    attempts = await take(outbox)
    assert await webhooks.delete("a", webhook_id)
    assert not await webhooks.delete("a", webhook_id)
    assert not await outbox.finish(attempts[0], "again", now_ms=NOW)
    await ended_job(jobs, queue)
    assert await take(outbox, NOW + 2 * LEASE) == []
    assert await redis.keys(f"*{webhook_id}*") == []
    assert await redis.smembers(keys.outbox_endpoints("a")) == set()


async def test_a_tenant_has_a_limited_number_of_webhooks(webhooks):
    for _ in range(MOST_WEBHOOKS):
        await registered(webhooks)
    assert await webhooks.create("a", new_id("webhook"), URL, (), b"secret", now_ms=NOW) is None
    assert len(await webhooks.all("a")) == MOST_WEBHOOKS


async def test_a_second_creation_under_one_id_changes_nothing(webhooks):
    webhook_id = await registered(webhooks, "job.failed")
    assert await webhooks.create("a", webhook_id, URL, (), b"fresh", now_ms=NOW + 1) == NOW
    webhook = await webhooks.get("a", webhook_id)
    assert (webhook.secret, webhook.events, webhook.created_ms) == (b"secret", ("job.failed",), NOW)


async def test_the_two_secrets_before_sign_for_a_day_however_often_a_rotation_is_sent(webhooks):
    webhook_id = await registered(webhooks)
    for at, (secret, nonce) in enumerate([(b"second", "n"), (b"other", "n"), (b"third", "m")]):
        await webhooks.rotate("a", webhook_id, secret, nonce=nonce, now_ms=NOW + at)
    webhook = await webhooks.get("a", webhook_id)
    assert webhook.secret == b"third"
    assert webhook.before == ((b"second", NOW + 2 + ROTATION_MS), (b"secret", NOW + ROTATION_MS))
    assert not await webhooks.rotate("b", webhook_id, b"x", nonce="m")


async def test_an_event_under_way_that_is_sent_again_goes_out_once_more(outbox, webhooks, jobs, queue):
    webhook_id = await registered(webhooks)
    await ended_job(jobs, queue)
    (eighth,) = await take(outbox)
    assert await outbox.send("a", webhook_id, eighth.event_id, now_ms=NOW)
    assert not await outbox.finish(eighth, "dead", now_ms=NOW)
    (again,) = await take(outbox)
    assert (again.event_id, again.number) == (eighth.event_id, 1)


@pytest.mark.parametrize("url", ["https://a.example:443/y", "https://A.example./x?y", "https://a.example"])
async def test_callbacks_go_by_their_origin_however_it_is_written(outbox, jobs, queue, url):
    await ended_job(jobs, queue, callback_url="https://a.example/x")
    await ended_job(jobs, queue, callback_url=url)
    endpoints = {attempt.endpoint for attempt in await take(outbox)}
    assert len(endpoints) == 2
    assert len({origin_of(endpoint) for endpoint in endpoints}) == 1


async def test_a_long_queue_of_a_webhook_that_is_gone_is_given_up_in_parts(redis, outbox, webhooks):
    webhook_id = await registered(webhooks)
    for number in range(1_200):
        await outbox.send("a", webhook_id, f"evt_{number}", event="webhook.test", job_id="j", now_ms=NOW)
    assert await webhooks.delete("a", webhook_id)
    looks = 0
    while await outbox.take(10, lease_ms=LEASE, now_ms=NOW) is not None:
        looks += 1
    assert looks == 3
    assert await redis.keys(f"*{webhook_id}*") == []


async def test_secrets_and_urls_are_sealed(redis, webhooks):
    webhook_id = await registered(webhooks)
    kept = b"".join((await redis.hgetall(keys.webhook("a", webhook_id))).values())
    assert b"secret" not in kept
    assert b"hooks.example" not in kept
    first = await webhooks.callback_secret("a", b"one")
    assert (first, await webhooks.callback_secret("a", b"two")) == (b"one", b"one")
    assert await redis.get(keys.callback_secret("a")) != b"one"
