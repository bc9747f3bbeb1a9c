from __future__ import annotations

import pytest

from camserve.v1 import jobs_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.rpc.job_metadata import fill_metadata
from camserve_server.stores import keys
from camserve_server.stores.cluster import primaries
from camserve_server.stores.durability import Disk, DurabilityError, needs_wait
from camserve_server.stores.job_queue import Claim, Outcome
from camserve_server.stores.jobs import RECORD_KEPT_MS, Jobs, Metadata, NewItem, NewJob, Submitted
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.pressure import Pressure

NOW = 2_800_000_000_000
TTL = 3_600_000
LEASE = 15_000


def new_job(count, version="2"):
    items = [NewItem(f"i{n}", b"spec %d" % n) for n in range(count)]
    return NewJob(new_id("job"), "shapes", version, TTL, None, items)


async def submit(jobs, count, *, tenant="a", at=NOW, version="2"):
    job = new_job(count, version)
    await jobs.submit(tenant, job, now_ms=at)
    return job.job_id


async def claim(queue, count=100, *, at=NOW, worker="w", width=100, most=100, leave=()) -> list[Claim]:
    turn = await queue.next_turn(worker, width=width, items_per_s=1.0, now_ms=at)
    if turn is None:
        return []
    return await queue.claim(turn, count, lease_ms=LEASE, most_leases=most, now_ms=at, leave=leave)


async def finish(queue, claims, state="s", at=NOW):
    return await queue.finish(claims[0].tenant, [Outcome(c, state, b"result") for c in claims], now_ms=at)


async def test_items_are_claimed_in_the_order_of_submission_with_their_specs(jobs, queue):
    first, second = await submit(jobs, 2), await submit(jobs, 1)
    claims = await claim(queue)
    assert [(one.job_id, one.index, one.spec) for one in claims] == [
        (first, 0, b"spec 0"),
        (first, 1, b"spec 1"),
        (second, 0, b"spec 0"),
    ]
    assert len({one.fence for one in claims}) == 3
    assert await claim(queue) == []


async def test_a_job_runs_from_its_first_claim_and_ends_with_its_last_outcome(jobs, queue):
    job_id = await submit(jobs, 2)
    assert (await jobs.get("a", job_id)).status == "queued"
    claims = await claim(queue, at=NOW + 10)
    running = await jobs.get("a", job_id)
    assert (running.status, running.started_ms) == ("running", NOW + 10)
    assert await finish(queue, claims[:1]) == [True]
    assert await finish(queue, claims[1:], "f", at=NOW + 30) == [True]
    done = await jobs.get("a", job_id)
    assert (done.status, done.completed_ms, done.succeeded, done.failed) == ("succeeded", NOW + 30, 1, 1)
    items = await jobs.items("a", done, range(2))
    assert [(item.id, item.status, item.result) for item in items] == [
        ("i0", "succeeded", b"result"),
        ("i1", "failed", b"result"),
    ]
    assert await jobs.finished("a", job_id, 0) == [0, 1]


async def test_a_job_without_a_good_item_fails(jobs, queue):
    job_id = await submit(jobs, 2)
    await finish(queue, await claim(queue), "f")
    assert (await jobs.get("a", job_id)).status == "failed"


async def test_why_a_job_failed_is_kept_longer_than_its_items(jobs, queue):
    job_id = await submit(jobs, 2)
    await finish(queue, await claim(queue), "f")
    failed = await jobs.get("a", job_id)
    assert failed.error == (await jobs.items("a", failed, [0]))[0].result
    assert failed.error
    await jobs.expire("a", job_id, now_ms=NOW + TTL)
    over = await jobs.get("a", job_id)
    assert (over.removed, over.error) == (True, failed.error)


async def test_metadata_that_a_server_of_before_kept_are_read(redis, jobs):
    job = NewJob(new_id("job"), "shapes", "2", TTL, Metadata(b'{"order":7}', b"packed"), [NewItem("x", b"spec")])
    await jobs.submit("a", job, now_ms=NOW)
    assert (await jobs.get("a", job.job_id)).metadata == job.metadata
    await redis.hdel(keys.job("a", job.job_id), "metadata_packed")
    kept = (await jobs.get("a", job.job_id)).metadata
    message = pb.Job()
    fill_metadata(message.metadata, kept)
    assert dict(message.metadata) == {"order": 7}


async def test_submitting_a_job_twice_makes_it_once(jobs, queue):
    job_id = new_id("job")
    new = NewJob(job_id, "shapes", "2", TTL, Metadata(b"{}", b""), [NewItem("x", b"spec")])
    pressure = Pressure(items=1, tenants=1, items_per_s=0.0)
    assert await jobs.submit("a", new, now_ms=NOW) == Submitted(accepted=True, pressure=pressure)
    assert await jobs.submit("a", new, now_ms=NOW + 5) == Submitted(accepted=False, pressure=pressure)
    assert len(await claim(queue)) == 1
    assert await claim(queue) == []
    assert (await jobs.get("a", job_id)).submitted_ms == NOW


async def test_an_outcome_is_recorded_once_however_often_it_is_sent(jobs, queue):
    job_id = await submit(jobs, 2)
    claims = await claim(queue)
    assert await finish(queue, claims[:1]) == [True]
    assert await finish(queue, claims[:1]) == [True]
    assert (await jobs.get("a", job_id)).succeeded == 1
    assert await jobs.finished("a", job_id, 0) == [0]


async def test_a_worker_that_lost_its_lease_cannot_write(jobs, queue):
    job_id = await submit(jobs, 1)
    old = await claim(queue)
    new = await claim(queue, at=NOW + LEASE)
    assert (new[0].index, new[0].claims) == (0, 2)
    assert await finish(queue, old, at=NOW + LEASE) == [False]
    assert await queue.renew("a", old, lease_ms=LEASE, now_ms=NOW + LEASE) == [False]
    assert not await queue.release(old[0], now_ms=NOW + LEASE)
    assert await finish(queue, new, at=NOW + LEASE) == [True]
    assert (await jobs.get("a", job_id)).succeeded == 1


async def test_a_renewed_lease_holds(jobs, queue):
    await submit(jobs, 1)
    held = await claim(queue)
    assert await queue.renew("a", held, lease_ms=LEASE, now_ms=NOW + LEASE - 1) == [True]
    assert await claim(queue, at=NOW + LEASE) == []
    assert len(await claim(queue, at=NOW + 2 * LEASE)) == 1


async def test_lost_items_come_back_in_order_ahead_of_the_rest(jobs, queue):
    await submit(jobs, 12)
    await claim(queue, 11)
    again = await claim(queue, at=NOW + LEASE)
    assert [one.index for one in again] == list(range(12))


async def test_a_poison_item_fails_after_three_claims_and_the_rest_goes_on(jobs, queue):
    job_id = await submit(jobs, 2)
    good = None
    for attempt in range(3):
        claims = await claim(queue, at=NOW + attempt * LEASE)
        if good is None:
            good = claims[1]
            assert await finish(queue, [good]) == [True]
    assert await claim(queue, at=NOW + 3 * LEASE) == []
    done = await jobs.get("a", job_id)
    assert (done.status, done.succeeded, done.failed) == ("succeeded", 1, 1)
    poison = (await jobs.items("a", done, [0]))[0]
    assert (poison.status, poison.result) == ("failed", b"")


async def test_an_item_handed_back_is_next_and_its_claim_does_not_count(jobs, queue):
    await submit(jobs, 3)
    first = (await claim(queue, 1))[0]
    assert await queue.release(first, now_ms=NOW)
    again = (await claim(queue, 1))[0]
    assert (again.index, again.claims) == (0, 1)
    assert again.fence > first.fence


async def test_an_item_handed_back_with_a_delay_waits_for_it(jobs, queue):
    await submit(jobs, 1)
    first = (await claim(queue))[0]
    assert await queue.release(first, delay_ms=2_000, counts=True, now_ms=NOW)
    assert await finish(queue, [first]) == [False]
    assert await claim(queue, at=NOW + 1_999) == []
    assert [one.claims for one in await claim(queue, at=NOW + 2_000)] == [2]


async def test_items_of_a_model_that_a_worker_leaves_keep_their_places_for_others(jobs, queue):
    first, other, last = [await submit(jobs, 2, version=version) for version in ("1", "2", "1")]
    for _ in range(2):
        claims = await claim(queue, 1, leave=[("shapes", "1"), ("shapes", "3")])
        assert [one.job_id for one in claims] == [other]
    assert await claim(queue, leave=[("shapes", "1")]) == []
    # The tenant has its turns all the same: there is work for others.
    claims = await claim(queue)
    assert [(one.job_id, one.index) for one in claims] == [(first, 0), (first, 1), (last, 0), (last, 1)]


async def test_a_worker_looks_past_so_many_items_that_it_leaves(jobs, queue):
    for _ in range(4):
        await submit(jobs, 64, version="1")
    await submit(jobs, 1)
    assert await claim(queue, leave=[("shapes", "1")]) == []
    assert len(await claim(queue, 1)) == 1
    assert len(await claim(queue, leave=[("shapes", "1")])) == 1
    assert len(await claim(queue, 1000, most=1000)) == 255


async def test_canceling_drops_what_waits_and_refuses_what_runs(jobs, queue):
    job_id = await submit(jobs, 3)
    running = await claim(queue, 1)
    before, specs = await jobs.cancel("a", job_id, now_ms=NOW + 5)
    assert (before, specs) == ("running", [b"spec 0", b"spec 1", b"spec 2"])
    assert await finish(queue, running) == [False]
    assert await queue.renew("a", running, lease_ms=LEASE, now_ms=NOW) == [False]
    assert await claim(queue) == []
    assert await claim(queue, at=NOW + LEASE) == []
    canceled = await jobs.get("a", job_id)
    assert (canceled.status, canceled.completed_ms) == ("canceled", NOW + 5)
    assert {item.status for item in await jobs.items("a", canceled, range(3))} == {"canceled"}
    assert await jobs.cancel("a", job_id, now_ms=NOW + 9) == ("canceled", [])
    assert (await jobs.get("a", job_id)).completed_ms == NOW + 5
    assert await jobs.cancel("a", "job_unknown") is None


async def test_an_expired_job_loses_its_items_and_later_its_record(redis, jobs, queue):
    job_id = await submit(jobs, 2)
    held = await claim(queue, 1)
    assert await jobs.expire_due(now_ms=NOW + TTL - 1) == 0
    await jobs.expire_due(now_ms=NOW + TTL)
    expired = await jobs.get("a", job_id)
    assert (expired.status, expired.completed_ms, expired.removed) == ("expired", NOW + TTL, True)
    assert await finish(queue, held, at=NOW + TTL) == [False]
    assert await claim(queue, at=NOW + TTL) == []
    assert not await redis.exists(keys.job_items("a", job_id), keys.job_done("a", job_id))
    assert await jobs.expire_due(now_ms=NOW + TTL + RECORD_KEPT_MS - 1) == 0
    await jobs.expire_due(now_ms=NOW + TTL + RECORD_KEPT_MS)
    assert await jobs.get("a", job_id) is None
    left = {key.decode() for key in await redis.keys("*")}
    assert left <= {
        keys.known_tenants(),
        keys.ring_workers(),
        keys.tenant("a") + "fences",
        keys.ring() + "turn",
        keys.ring() + "version",
    }


async def test_a_finished_job_keeps_its_state_when_its_results_expire(jobs, queue):
    job_id = await submit(jobs, 1)
    await finish(queue, await claim(queue))
    await jobs.expire_due(now_ms=NOW + TTL)
    kept = await jobs.get("a", job_id)
    assert (kept.status, kept.removed) == ("succeeded", True)


@pytest.mark.parametrize("claimed", [False, True])
async def test_a_job_past_its_time_is_expired_for_whoever_comes_before_the_janitor(jobs, queue, claimed):
    job_id = await submit(jobs, 1)
    held = await claim(queue) if claimed else []
    if claimed:
        assert await finish(queue, held, at=NOW + TTL) == [False]
    assert (await jobs.cancel("a", job_id, now_ms=NOW + TTL))[0] == "expired"
    assert (await jobs.get("a", job_id)).status == "expired"
    assert await queue.renew("a", held, lease_ms=LEASE, now_ms=NOW + TTL) == [False] * len(held)


async def test_an_item_of_a_job_past_its_time_is_not_claimed_before_the_janitor_comes(jobs, queue):
    await submit(jobs, 1)
    assert await claim(queue, at=NOW + TTL) == []


async def test_what_lies_in_redis_shows_neither_specs_nor_results(redis, jobs, queue):
    await submit(jobs, 1)
    await finish(queue, await claim(queue))
    await submit(jobs, 1)
    for key in await redis.keys("*items"):
        held = b" ".join(await redis.hvals(key))
        assert b"spec" not in held
        assert b"result" not in held


async def test_a_store_that_cannot_keep_what_it_acknowledges_stops_the_start(redis):
    assert await needs_wait(redis) is False
    await redis.config_set("appendfsync", "everysec")
    assert await needs_wait(redis) is True
    await redis.config_set("appendonly", "no")
    try:
        with pytest.raises(DurabilityError, match="appendonly yes"):
            await needs_wait(redis)
    finally:
        await redis.config_set("appendonly", "yes")
        await redis.config_set("appendfsync", "always")


async def test_a_write_is_waited_for_where_the_server_does_not_wait_itself(redis, sealer):
    jobs = Jobs(redis, sealer, Disk(wait=True), Outbox(redis))
    await submit(jobs, 1)
    servers = await primaries(redis)
    for server in servers:
        await server.config_set("appendonly", "no")
    try:
        with pytest.raises(ApiError) as caught:
            await submit(jobs, 1)
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    finally:
        for server in servers:
            await server.config_set("appendonly", "yes")


async def test_a_submission_that_is_sent_again_by_the_client_is_the_same_one(redis, jobs, monkeypatch):
    # What redis-py does after a lost connection: the server has run the script, and gets it once more.
    pipeline = redis.pipeline

    def twice(**options):
        pipe = pipeline(**options)
        run = pipe.execute

        async def execute():
            commands = list(pipe.command_stack)
            await run()
            pipe.command_stack = commands
            return await run()

        pipe.execute = execute
        return pipe

    monkeypatch.setattr(redis, "pipeline", twice)
    new = NewJob(new_id("job"), "shapes", "2", TTL, None, [NewItem("x", b"spec")])
    assert (await jobs.submit("a", new, now_ms=NOW)).accepted
