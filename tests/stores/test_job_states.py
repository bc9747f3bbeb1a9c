"""Every interleaving of what may happen to a job, against a model that knows only the rules."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clock import FakeClock

from camserve_server.base.ids import new_id
from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import MOST_CLAIMS, Claim, JobQueue, Outcome
from camserve_server.stores.jobs import FINAL, Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks

HOOK = "webhook_0000000000000000000000"
LEASE = 1_000
TTL = 100_000
NEXT = {
    "queued": {"queued", "running", "canceled", "expired"},
    "running": {"running", "succeeded", "failed", "canceled", "expired"},
    **{status: {status} for status in FINAL},
}


class World:
    """One tenant's jobs, workers that hold what they once claimed, and the rules that must hold after each step."""

    def __init__(self, redis, ring):
        sealer = Sealer(ring, "job")
        self.redis = redis
        self.ring = ring
        self.outbox = Outbox(redis)
        self.jobs = Jobs(redis, sealer, Disk(), self.outbox)
        self.queue = JobQueue(redis, sealer, self.outbox)
        self.now = 1_800_000_000_000
        self.ids: list[str] = []
        self.sizes: dict[str, int] = {}
        self.held: dict[str, list[Claim]] = {"A": [], "B": []}
        self.status: dict[str, str] = {}
        self.recorded: dict[tuple[str, int], bytes] = {}

    async def submit(self, items=1):
        if not self.ids:
            webhooks = Webhooks(self.redis, Sealer(self.ring, "webhook"), Disk())
            await webhooks.create("t", HOOK, "https://hooks.example/", (), b"secret", now_ms=self.now)
        job_id = new_id("job")
        self.ids.append(job_id)
        self.sizes[job_id] = items
        self.status[job_id] = "queued"
        new = [NewItem(str(n), b"spec") for n in range(items)]
        await self.jobs.submit("t", NewJob(job_id, "m", "1", TTL, None, new), now_ms=self.now)

    async def claim(self, worker):
        if turn := await self.queue.next_turn(worker, width=4, items_per_s=0.0, now_ms=self.now):
            claims = await self.queue.claim(turn, 1, lease_ms=LEASE, most_leases=8, now_ms=self.now)
            for one in claims:
                assert 1 <= one.claims <= MOST_CLAIMS
                assert (one.job_id, one.index) not in self.recorded
                assert self.status[one.job_id] in ("queued", "running")
            self.held[worker] += claims

    async def renew(self, worker):
        if held := self.held[worker][-1:]:
            await self.queue.renew("t", held, lease_ms=LEASE, now_ms=self.now)

    async def finish(self, worker, state="s"):
        if not self.held[worker]:
            return
        # The claim stays with the worker: it may send its outcome again.
        one = self.held[worker][-1]
        result = f"{worker} {one.fence} {state}".encode()
        before = await self.jobs.get("t", one.job_id)
        if (await self.queue.finish("t", [Outcome(one, state, result)], now_ms=self.now))[0]:
            earlier = self.recorded.setdefault((one.job_id, one.index), result)
            assert earlier.split()[:2] == result.split()[:2], "two holders recorded one item"
            assert before is not None
            assert before.status == "running" or earlier is not result

    async def release(self, worker, delay=0):
        if self.held[worker]:
            await self.queue.release(self.held[worker].pop(), delay_ms=delay, counts=True, now_ms=self.now)

    async def cancel(self, number=-1):
        if self.ids:
            await self.jobs.cancel("t", self.ids[number % len(self.ids)], now_ms=self.now)

    async def lapse(self):
        self.now += LEASE

    async def expire(self):
        self.now += TTL
        await self.jobs.expire_due(now_ms=self.now)

    async def look(self, job_id):
        """Returns the job once its state has proved to be one that may follow the last one seen."""
        job = await self.jobs.get("t", job_id)
        assert job is not None
        assert job.status in NEXT[self.status[job_id]], f"{self.status[job_id]} became {job.status}"
        self.status[job_id] = job.status
        return job

    async def check(self):
        waiting = [name.decode() for name in await self.redis.lrange(keys.job_queue("t"), 0, -1)]
        leased = {name.decode() for name in await self.redis.zrange(keys.job_leases("t"), 0, -1)}
        assert len(waiting) == len(set(waiting)), "an item waits twice"
        assert not leased & set(waiting), "an item waits and is leased"
        for job_id in self.ids:
            job = await self.look(job_id)
            event = await self.outbox.delivery("t", HOOK, f"evt{job_id[3:]}")
            if job.status in FINAL:
                assert event is not None, "a job ended without its event"
                assert event.event == f"job.{job.status}"
            else:
                assert event is None, "an event without its state"
            if job.removed:
                continue
            items = await self.jobs.items("t", job, range(job.items))
            ended = await self.jobs.finished("t", job_id, 0)
            assert len(ended) == len(set(ended)), "an item ended twice"
            assert len(ended) == job.succeeded + job.failed
            assert set(ended) == {item.index for item in items if item.result is not None}
            for item in items:
                ours = self.recorded.get((job_id, item.index))
                assert item.result in (ours, b""), "a result was replaced"
                name = f"{job_id}:{item.index:03d}"
                if job.status not in FINAL and item.result is None:
                    assert name in leased or name in waiting, "an item is lost"
            if job.succeeded + job.failed == job.items:
                assert job.status in FINAL

    async def drain(self):
        """Whatever happened, workers that go on bring every job to its end."""
        for _ in range(MOST_CLAIMS + 1):
            await self.lapse()
            for _ in range(sum(self.sizes.values())):
                held = len(self.held["A"])
                await self.claim("A")
                await self.check()
                if len(self.held["A"]) > held:
                    await self.finish("A")
                    await self.check()
        assert all(status in FINAL for status in self.status.values())


@pytest.fixture
async def fast_redis(redis) -> AsyncIterator:
    """What is tested here is order, not the disk."""
    await redis.config_set("appendfsync", "no")
    yield redis
    await redis.config_set("appendfsync", "always")


@pytest.fixture
def ring(tmp_path):
    return KeyRing(tmp_path / "state.json", clock=FakeClock())


STEPS = {
    "claim A": lambda world: world.claim("A"),
    "claim B": lambda world: world.claim("B"),
    "renew A": lambda world: world.renew("A"),
    "finish A": lambda world: world.finish("A"),
    "finish B": lambda world: world.finish("B", "f"),
    "cancel": lambda world: world.cancel(),
    "lapse": lambda world: world.lapse(),
    "expire": lambda world: world.expire(),
}


@pytest.mark.timeout(180)
async def test_every_order_of_four_steps_keeps_the_rules(fast_redis, ring):
    for order in itertools.product(STEPS, repeat=4):
        await fast_redis.flushall()
        world = World(fast_redis, ring)
        await world.submit()
        try:
            for name in order:
                await STEPS[name](world)
                await world.look(world.ids[0])
            await world.check()
        except AssertionError as error:
            raise AssertionError(f"after {order}: {error}") from error


WORKER = st.sampled_from("AB")
STEP = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 3)),
    st.tuples(st.just("claim"), WORKER),
    st.tuples(st.just("claim"), WORKER),
    st.tuples(st.just("renew"), WORKER),
    st.tuples(st.just("finish"), WORKER, st.sampled_from("sf")),
    st.tuples(st.just("release"), WORKER, st.sampled_from([0, LEASE // 2])),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("lapse")),
    st.tuples(st.just("expire")),
)


@pytest.mark.timeout(180)
def test_long_histories_keep_the_rules_and_come_to_an_end(redis_url, ring):
    from camserve_server.stores.redis import connect

    async def live(steps):
        redis = connect(redis_url)
        try:
            await redis.flushall()
            await redis.config_set("appendfsync", "no")
            world = World(redis, ring)
            await world.submit(2)
            for name, *arguments in steps:
                await getattr(world, name)(*arguments)
                await world.check()
            await world.drain()
        finally:
            await redis.config_set("appendfsync", "always")
            await redis.aclose()

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(STEP, min_size=5, max_size=40))
    def histories(steps):
        asyncio.run(live(steps))

    histories()
