"""Whose items are claimed next."""

from __future__ import annotations

from tests.stores.test_jobs import LEASE, NOW, claim, finish, new_job, submit

from camserve_server.stores import keys


async def test_ten_items_of_one_tenant_do_not_wait_for_ten_thousand_of_another(jobs, queue):
    for _ in range(40):
        await submit(jobs, 250, tenant="large")
    await submit(jobs, 10, tenant="small")
    order = []
    while "small" not in order[-1:] or order.count("small") < 10:
        claims = await claim(queue, 1, worker="w", width=1)
        order += [one.tenant for one in claims]
        await finish(queue, claims)
    assert len(order) <= 20


async def test_tenants_take_turns_and_each_keeps_to_its_share(jobs, queue):
    for tenant in ("a", "b", "c"):
        await submit(jobs, 10, tenant=tenant)
    turns = []
    for _ in range(6):
        turn = await queue.next_turn("w", width=8, items_per_s=0.0, now_ms=NOW)
        assert (turn.active, turn.width) == (3, 8)
        turns.append(turn.tenant)
        await queue.claim(turn, 8, lease_ms=LEASE, most_leases=3, now_ms=NOW)
    assert turns == ["a", "b", "c", "a", "b", "c"]
    # Items under a lease count, too.
    assert (await jobs.submit("a", new_job(1), now_ms=NOW)).pressure.items == 11
    later = await queue.next_turn("w", width=8, items_per_s=0.0, now_ms=NOW)
    assert await queue.claim(later, 8, lease_ms=LEASE, most_leases=3, now_ms=NOW) == []


async def test_a_tenant_leaves_the_ring_only_when_it_has_no_work(jobs, queue):
    await submit(jobs, 1)
    turn = await queue.next_turn("w", width=1, items_per_s=0.0, now_ms=NOW)
    held = await queue.claim(turn, 1, lease_ms=LEASE, most_leases=9, now_ms=NOW)
    assert await queue.claim(turn, 1, lease_ms=LEASE, most_leases=9, now_ms=NOW) == []
    assert await queue.next_turn("w", width=1, items_per_s=0.0, now_ms=NOW) is not None
    await finish(queue, held)
    stale = await queue.next_turn("w", width=1, items_per_s=0.0, now_ms=NOW)
    await submit(jobs, 1)
    # The turn was drawn before the new job: its version is old, and the tenant stays.
    await finish(queue, await claim(queue))
    assert await queue.claim(stale, 1, lease_ms=LEASE, most_leases=9, now_ms=NOW) == []
    assert await queue.next_turn("w", width=1, items_per_s=0.0, now_ms=NOW) is not None
    assert await claim(queue) == []
    assert await queue.next_turn("w", width=1, items_per_s=0.0, now_ms=NOW) is None


async def test_a_tenant_that_a_crash_kept_from_the_ring_gets_its_place(redis, jobs, queue):
    await submit(jobs, 1)
    await redis.delete(keys.ring_turns(), keys.ring() + "versions")
    assert await claim(queue) == []
    assert await jobs.mend_ring() == 1
    assert await jobs.mend_ring() == 0
    assert len(await claim(queue)) == 1


async def test_many_tenants_get_their_places_in_rounds(redis, jobs):
    tenants = [f"t{number}" for number in range(1_300)]
    pipe = redis.pipeline(transaction=False)
    pipe.sadd(keys.known_tenants(), *tenants)
    for tenant in tenants:
        pipe.rpush(keys.job_queue(tenant), "job_x:000")
    await pipe.execute()
    rounds = [await jobs.mend_ring() for _ in range(4)]
    assert max(rounds) < 800
    assert sum(rounds) == await redis.zcard(keys.ring_turns()) == 1_300


async def test_silent_workers_do_not_count(queue, jobs):
    await submit(jobs, 1)
    await queue.next_turn("gone", width=5, items_per_s=4.0, now_ms=NOW)
    turn = await queue.next_turn("here", width=3, items_per_s=2.0, now_ms=NOW + 1_000)
    assert turn.width == 8
    assert (await jobs.submit("a", new_job(1), now_ms=NOW)).pressure.items_per_s == 6.0
    turn = await queue.next_turn("here", width=3, items_per_s=2.0, now_ms=NOW + 40_000)
    assert turn.width == 3


async def test_a_tenant_without_a_lease_begins_with_more_than_there_is_room_for(jobs, queue):
    await submit(jobs, 9)
    turn = await queue.next_turn("w", width=4, items_per_s=1.0, now_ms=NOW)
    options = {"lease_ms": LEASE, "most_leases": 4, "newcomers": 5, "now_ms": NOW}
    assert len(await queue.claim(turn, 0, **options)) == 5
    assert await queue.claim(turn, 3, **options) == []
    first = await queue.claim(turn, 3, **options | {"most_leases": 6})
    assert len(first) == 1
