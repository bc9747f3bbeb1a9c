"""The ring of the outbox: whose turn it is, what is put off, and what mends it."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from tests.stores.test_jobs import NOW
from tests.stores.test_outbox import LEASE, ended_job, registered, take

from camserve_server.base.errors import ApiError
from camserve_server.stores import keys
from camserve_server.stores.outbox import origin_of

FAR = 4_000_000_000_000


def callbacks(count, *, origin="d"):
    return [f"cb_{origin * 16}{number:032x}" for number in range(count)]


async def waiting(redis, endpoints, *, tenant="a", due=NOW):
    """Lets an event wait for each endpoint, which has no place in the ring."""
    pipe = redis.pipeline(transaction=False)
    pipe.sadd(keys.known_tenants(), tenant)
    pipe.sadd(keys.outbox_endpoints(tenant), *endpoints)
    for endpoint in endpoints:
        pipe.zadd(keys.outbox(tenant, endpoint), {"evt_x": due})
    await pipe.execute()


async def placed(redis, endpoints, *, tenant="a", at=NOW):
    await redis.zadd(keys.ring_outbox(tenant), dict.fromkeys(endpoints, at))
    await redis.zadd(keys.ring_outbox_tenants(), {tenant: at})


async def places(redis, *, tenant="a"):
    found = await redis.zrange(keys.ring_outbox(tenant), 0, -1, withscores=True)
    return {endpoint.decode(): int(place) for endpoint, place in found}


async def crowded_out(outbox, *origins, at=NOW):
    """Takes turns as a courier that has no room for these origins of tenant a."""
    taken = []
    crowded = [(f"cb_{origin * 16}", "a") for origin in origins]
    while (some := await outbox.take(9, lease_ms=LEASE, crowded=crowded, now_ms=at)) is not None:
        taken += some
    return taken


async def test_a_crash_before_the_announcement_is_mended(redis, outbox, webhooks, jobs, queue):
    await registered(webhooks)
    await ended_job(jobs, queue)
    await redis.delete(keys.ring_outbox("a"), keys.ring_outbox_tenants())
    assert await take(outbox) == []
    assert await outbox.mend() == 1
    assert await outbox.mend() == 0
    assert len(await take(outbox)) == 1


async def test_an_event_that_comes_while_an_endpoint_is_settled_is_not_overlooked(
    redis, outbox, webhooks, jobs, queue, monkeypatch
):
    await registered(webhooks)
    await ended_job(jobs, queue)
    await outbox.finish((await take(outbox))[0], "delivered", now_ms=NOW)
    await ended_job(jobs, queue)
    evalsha, calls = redis.evalsha, 0

    async def with_an_event_after_the_claim(*args):
        nonlocal calls
        calls += 1
        reply = await evalsha(*args)
        if calls == 2:
            await ended_job(jobs, queue)
        return reply

    monkeypatch.setattr(redis, "evalsha", with_an_event_after_the_claim)
    assert len(await outbox.take(1, lease_ms=LEASE, now_ms=NOW)) == 1
    assert len(await outbox.take(1, lease_ms=LEASE, now_ms=NOW)) == 1


async def test_an_event_whose_announcement_was_lost_does_not_wait_for_one_in_a_long_pause(
    redis, outbox, webhooks, jobs, queue
):
    await registered(webhooks)
    await ended_job(jobs, queue)
    (first,) = await take(outbox)
    await outbox.finish(first, "again", pause_ms=10 * 3_600_000, now_ms=NOW)
    assert await take(outbox, NOW + LEASE) == []
    ((endpoint, later),) = await redis.zrange(keys.ring_outbox("a"), 0, -1, withscores=True)
    await ended_job(jobs, queue)
    # As if nobody had announced it.
    await redis.zadd(keys.ring_outbox("a"), {endpoint: later})
    await redis.zadd(keys.ring_outbox_tenants(), {"a": later})
    assert await take(outbox) == []
    assert await outbox.mend() == 1
    assert len(await take(outbox)) == 1
    assert await outbox.mend() == 0


async def test_endpoints_that_are_put_off_are_due_again_later(outbox, webhooks, jobs, queue):
    for _ in range(3):
        await registered(webhooks)
    other = await registered(webhooks, tenant="b")
    await ended_job(jobs, queue)
    await ended_job(jobs, queue, tenant="b")
    taken = []
    while (some := await outbox.take(100, lease_ms=LEASE, full=["a"], now_ms=NOW)) is not None:
        taken += some
    assert [one.endpoint for one in taken] == [other]
    assert len(await take(outbox, NOW)) == 3


async def test_of_a_crowded_origin_nothing_is_taken_and_the_rest_of_its_tenant_soon(outbox, jobs, queue):
    for number in range(250):
        await ended_job(jobs, queue, callback_url=f"https://dead.example/{number}")
    (dead,) = await outbox.take(1, lease_ms=LEASE, now_ms=NOW)
    await ended_job(jobs, queue, callback_url="https://good.example/")
    crowded = [(origin_of(dead.endpoint), "a")]
    looks, taken = 0, []
    while (some := await outbox.take(9, lease_ms=LEASE, crowded=crowded, now_ms=NOW)) is not None:
        looks += 1
        taken += some
    assert len(taken) == 1
    assert origin_of(taken[0].endpoint) != origin_of(dead.endpoint)
    assert looks <= 5
    assert len(await take(outbox, NOW + 2_000)) == 249


async def test_a_tenant_with_many_endpoints_takes_turns_with_the_others(outbox, webhooks, jobs, queue):
    for number in range(20):
        await ended_job(jobs, queue, callback_url=f"https://many.example/{number}", at=NOW - 60_000)
    await registered(webhooks, tenant="b")
    await ended_job(jobs, queue, tenant="b")
    turns = [(await outbox.take(1, lease_ms=LEASE, now_ms=NOW + at))[0].tenant for at in range(3)]
    assert "b" in turns


async def test_a_tenant_with_old_events_takes_turns_although_its_attempts_end(redis, outbox, webhooks, jobs, queue):
    await registered(webhooks)
    for _ in range(5):
        await ended_job(jobs, queue, at=NOW - 60_000)
    await registered(webhooks, tenant="b")
    await ended_job(jobs, queue, tenant="b")
    await redis.zadd(keys.ring_outbox_tenants(), {"b": NOW})
    turns = []
    for at in range(6):
        (attempt,) = await outbox.take(1, lease_ms=LEASE, now_ms=NOW + at)
        turns.append(attempt.tenant)
        await outbox.finish(attempt, "delivered", now_ms=NOW + at)
    assert "b" in turns[:3]
    assert sorted(turns) == ["a"] * 5 + ["b"]


async def test_many_endpoints_are_mended_in_rounds_and_each_once(redis, outbox):
    endpoints = callbacks(2_500)
    await waiting(redis, endpoints)
    rounds = [await outbox.mend() for _ in range(4)]
    assert max(rounds) < 1_500
    assert sum(rounds) == 2_500
    assert (await places(redis)).keys() == set(endpoints)


async def test_a_place_that_is_lost_among_many_is_found_after_some_rounds(redis, outbox):
    endpoints = callbacks(2_500)
    await waiting(redis, endpoints)
    await placed(redis, endpoints)
    assert [await outbox.mend() for _ in range(4)] == [0, 0, 0, 0]
    await redis.zrem(keys.ring_outbox("a"), endpoints[1_234])
    assert sorted([await outbox.mend() for _ in range(4)]) == [0, 0, 0, 1]
    assert (await places(redis))[endpoints[1_234]] == NOW


async def test_of_many_tenants_each_is_mended_in_its_round(redis, outbox):
    for number in range(1_300):
        await waiting(redis, callbacks(1), tenant=f"t{number}")
    rounds = [await outbox.mend() for _ in range(4)]
    assert max(rounds) < 800
    assert sum(rounds) == 1_300


async def test_a_small_outbox_is_mended_whole_in_one_call(redis, outbox):
    await redis.sadd(keys.known_tenants(), *(f"idle{number}" for number in range(200)))
    for tenant in "abc":
        await waiting(redis, callbacks(250), tenant=tenant)
    assert await outbox.mend() == 750
    assert await outbox.mend() == 0
    await redis.delete(keys.ring_outbox("b"))
    assert await outbox.mend() == 250


@pytest.mark.parametrize("part", ["endpoint", "tenant"])
@pytest.mark.parametrize(("late", "mended"), [(35_000, 0), (35_001, 1)])
async def test_a_place_is_late_35_seconds_after_its_events(redis, outbox, part, late, mended):
    (endpoint,) = callbacks(1)
    await waiting(redis, [endpoint], due=FAR)
    # A lease that ends earlier is what counts.
    await redis.zadd(keys.outbox_sending("a", endpoint), {"evt_y": FAR - 500})
    at = FAR - 500 + late
    await redis.zadd(keys.ring_outbox("a"), {endpoint: at if part == "endpoint" else NOW})
    await redis.zadd(keys.ring_outbox_tenants(), {"a": at if part == "tenant" else NOW})
    assert await outbox.mend() == mended
    assert await outbox.mend() == 0
    turn = await redis.zscore(keys.ring_outbox_tenants(), "a")
    assert (await places(redis))[endpoint] == (NOW if part == "tenant" else FAR - 500 if mended else at)
    assert turn == (NOW if part == "endpoint" else FAR - 500 if mended else at)


async def test_an_event_of_the_past_is_late_35_seconds_from_now(redis, outbox):
    (endpoint,) = callbacks(1)
    await waiting(redis, [endpoint], due=1)
    seconds, _ = await redis.time()
    await placed(redis, [endpoint], at=1000 * seconds + 30_000)
    assert await outbox.mend() == 0
    await placed(redis, [endpoint], at=1000 * seconds + 3_600_000)
    assert await outbox.mend() == 1


async def test_a_tenant_with_few_endpoints_is_looked_at_in_every_round(redis, outbox):
    many = callbacks(5_000)
    await waiting(redis, many, tenant="many")
    await placed(redis, many, tenant="many")
    for tenant in "abc":
        await waiting(redis, callbacks(2), tenant=tenant)
        assert await outbox.mend() == 2
    await redis.delete(keys.ring_outbox("b"))
    assert await outbox.mend() == 2


async def test_a_server_that_has_forgotten_the_scripts_is_mended_too(redis, outbox):
    await waiting(redis, callbacks(3))
    await waiting(redis, callbacks(3), tenant="b")
    await redis.script_flush()
    assert await outbox.mend() == 6


async def test_a_round_that_fails_is_made_again(redis, outbox, monkeypatch):
    await waiting(redis, callbacks(3))

    async def fails(*args):
        raise RedisConnectionError

    await outbox.mend()
    await redis.delete(keys.ring_outbox("a"))
    with monkeypatch.context() as patched:
        patched.setattr(redis, "evalsha", fails)
        with pytest.raises(ApiError):
            await outbox.mend()
    assert await outbox.mend() == 3


@pytest.mark.parametrize(("count", "longest"), [(600, 2_000), (5_000, 15_000), (20_000, 30_000)])
async def test_crowded_endpoints_are_put_off_the_longer_the_more_there_are(redis, outbox, count, longest):
    endpoints = callbacks(count)
    await placed(redis, endpoints)
    assert await crowded_out(outbox, "d") == []
    after = sorted(place - NOW for place in (await places(redis)).values())
    assert max(2_000, longest // 2) <= after[0]
    assert after[-1] <= longest
    # Not all at once: most would find no room again.
    if count > 600:
        assert after[count // 4] < 0.7 * longest < 0.8 * longest < after[-count // 4]
    # Nor overlooked, whatever they wait for.
    await waiting(redis, endpoints[:10], due=NOW - 1)
    assert await outbox.mend() == 0


async def test_few_places_of_a_crowded_origin_are_not_put_off_for_another_ones_many(redis, outbox):
    many, few = callbacks(5_000), callbacks(20, origin="e")
    await placed(redis, many)
    await crowded_out(outbox, "d")
    await placed(redis, few, at=NOW + 9_000)
    assert await crowded_out(outbox, "d", "e", at=NOW + 9_000) == []
    found = await places(redis)
    assert max(found[each] for each in few) < NOW + 9_000 + 5_000


async def test_a_webhook_comes_as_soon_again_however_many_callbacks_are_put_off(redis, outbox, webhooks, jobs, queue):
    await placed(redis, callbacks(5_000), at=NOW - 1)
    webhook_id = await registered(webhooks)
    await ended_job(jobs, queue)
    while (
        await outbox.take(
            9, lease_ms=LEASE, crowded=[("cb_" + 16 * "d", "a")], left_alone={(webhook_id, "a")}, now_ms=NOW
        )
        is not None
    ):
        pass
    assert (await places(redis))[webhook_id] == NOW + 2_000
    assert [one.endpoint for one in await crowded_out(outbox, "d", at=NOW + 2_000)] == [webhook_id]
