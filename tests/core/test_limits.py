from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import replace
from unittest.mock import ANY

import pytest
from tests.clock import FakeClock

from camserve_server.base.clock import SystemClock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.admission import Admission
from camserve_server.core.limits import LimitAdmin, Limits, StoreWatch, TenantLimits
from camserve_server.stores.durability import Disk
from camserve_server.stores.limits import LimitRecords
from camserve_server.stores.redis import connect
from camserve_server.stores.usage import Usage, Used

DEFAULTS = TenantLimits(50, 100, 1000, 4, 256, 10_000)
NOW_MS = 1_800_000_000_000


@asynccontextmanager
async def admitted(admission, tenant, limits, *, images):
    """Runs a call that is charged at its beginning."""
    async with admission.staying(tenant, limits) as stay:
        await admission.charge(stay, images)
        yield


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def make(redis, clock):
    """Makes one replica's limits, and what sets them."""

    def build(client=redis):
        records, usage, watch = LimitRecords(client, Disk()), Usage(client), StoreWatch(clock)
        limits = Limits(records, usage, watch, clock, defaults=DEFAULTS)
        return limits, LimitAdmin(records, limits), Admission(usage, watch, clock)

    return build


async def test_a_tenants_own_limits_come_before_its_plans_and_those_before_everybodys(make):
    limits, admin, _ = make()
    await admin.set_plan("small", {"requests_per_second": 5, "burst": 9, "concurrency": 2})
    await admin.set_tenant("acme", "small", {"concurrency": 3})
    assert await limits.of("acme") == TenantLimits(5, 9, 1000, 3, 256, 10_000)
    assert await limits.of("other") == DEFAULTS


async def test_a_rate_without_a_burst_is_its_own_burst(make):
    limits, admin, _ = make()
    await admin.set_tenant("acme", None, {"requests_per_second": 5})
    assert (await limits.of("acme")).burst == 5


async def test_what_is_not_given_stays_and_a_reset_takes_all(make, clock):
    limits, admin, _ = make()
    await admin.set_plan("small", {"burst": 9})
    await admin.set_tenant("acme", "small", {"images_per_day": 7})
    await admin.set_tenant("acme", None, {"concurrency": 1})
    assert [name for name, *_ in await admin.tenants()] == ["acme"]
    assert (await limits.of("acme")).images_per_day == 7
    await admin.set_tenant("acme", "", {})
    assert (await admin.tenant("acme"))[0].plan is None
    await admin.reset_tenant("acme")
    clock.advance(1)
    assert await limits.of("acme") == DEFAULTS
    assert await admin.tenants() == []


async def test_a_tenants_limit_is_never_above_the_deployments(make):
    limits, admin, _ = make()
    await admin.set_tenant("acme", None, {"max_image_bytes": 20_000, "max_batch_size": 8})
    known = await limits.of("acme")
    assert (known.max_image_bytes, known.max_batch_size) == (10_000, 8)


async def test_another_replica_sees_a_change_after_a_second(make, clock):
    _, admin, _ = make()
    other, _, _ = make()
    assert (await other.of("acme")).concurrency == 4
    await admin.set_tenant("acme", None, {"concurrency": 9})
    clock.advance(0.99)
    assert (await other.of("acme")).concurrency == 4
    clock.advance(0.01)
    assert (await other.of("acme")).concurrency == 9


async def test_a_plan_that_is_not_there_cannot_be_given_or_deleted(make):
    _, admin, _ = make()
    for attempt in (admin.set_tenant("acme", "none", {}), admin.delete_plan("none")):
        with pytest.raises(ApiError) as refusal:
            await attempt
        assert refusal.value.reason is Reason.PLAN_NOT_FOUND


async def test_tenants_of_a_deleted_plan_have_the_limits_of_everybody(make):
    limits, admin, _ = make()
    await admin.set_plan("small", {"burst": 9})
    await admin.set_tenant("acme", "small", {})
    await admin.delete_plan("small")
    assert await limits.of("acme") == DEFAULTS
    assert await admin.plans() == []


@pytest.fixture
async def nowhere(tmp_path):
    """A client of a store that is not there."""
    client = connect(f"unix://{tmp_path / 'none.sock'}", timeout_s=0.2)
    yield client
    await client.aclose()


async def test_how_a_tenant_stood_is_known_for_a_second_unless_it_asked_too_much(make, clock):
    limits, admin, _ = make()
    await admin.set_tenant("acme", None, {"requests_per_second": 1, "burst": 2})
    own = await limits.of("acme")
    assert limits.recent("acme") is None
    standing = await limits.take("acme", own)
    assert standing.remaining == 1
    assert (limits.recent("acme"), limits.recent("other")) == (standing, None)
    clock.advance(1)
    assert limits.recent("acme") is None
    for _ in range(3):
        standing = await limits.take("acme", own)
    assert standing.retry_after_s is not None
    assert limits.recent("acme") is None


@pytest.mark.parametrize("given_up", [False, True])
async def test_a_request_is_not_counted_for_an_edge_that_gave_up_waiting(redis, clock, given_up):
    asked, answered = asyncio.Event(), asyncio.Event()

    class SlowUsage(Usage):
        """Its time stands still, so that nothing comes into the bucket but what is given back."""

        async def take(self, tenant, **options):
            bucket = await super().take(tenant, **options, now_ms=NOW_MS)
            asked.set()
            await answered.wait()
            return bucket

        async def give_back(self, tenant, **options):
            await super().give_back(tenant, **options, now_ms=NOW_MS)

    limits = Limits(LimitRecords(redis, Disk()), SlowUsage(redis), StoreWatch(clock), clock, defaults=DEFAULTS)
    taking = asyncio.create_task(limits.take_for("acme", DEFAULTS))
    await asked.wait()
    if given_up:
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
    answered.set()
    if not given_up:
        assert (await taking).remaining == 99
    left = 99
    while given_up and left == 99:
        left = (await Usage(redis).take("acme", rate=50, burst=100, look=True, now_ms=NOW_MS)).remaining
    assert left == (100 if given_up else 99)


async def test_without_the_store_a_replica_counts_by_itself(make, nowhere):
    limits, _, admission = make(nowhere)
    known = await limits.of("acme")
    assert known == DEFAULTS
    standings = [await limits.take("acme", known) for _ in range(101)]
    assert [standing.remaining for standing in standings[:3]] == [99, 98, 97]
    assert standings[99].retry_after_s is None
    assert standings[100].retry_after_s == 1
    async with admitted(admission, "acme", known, images=2000):
        pass
    await admission.close()


async def test_without_the_store_what_is_used_cannot_be_told(make, nowhere):
    limits, _, _ = make(nowhere)
    with pytest.raises(ApiError) as refusal:
        await limits.report("acme")
    assert refusal.value.reason is Reason.STORE_UNAVAILABLE


async def test_a_store_that_failed_is_asked_again_by_one_call_a_second(clock):
    watch = StoreWatch(clock)
    asked = 0
    down = True

    async def work():
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if down:
            raise ApiError(Reason.STORE_UNAVAILABLE)
        return "answer"

    for _ in range(5):
        assert await watch.ask(work) is None
    assert asked == 1
    clock.advance(1)
    assert await asyncio.gather(*(watch.ask(work) for _ in range(5))) == [None] * 5
    assert asked == 2
    down = False
    clock.advance(1)
    assert (await asyncio.gather(*(watch.ask(work) for _ in range(3)))).count("answer") == 1
    assert await watch.ask(work) == "answer"


async def test_a_call_that_fails_costs_no_image_and_one_that_is_left_does(make):
    limits, _, admission = make()
    known = await limits.of("acme")

    async def call(images, error=None):
        async with admitted(admission, "acme", known, images=images):
            if error:
                raise error

    await call(1)
    with pytest.raises(ApiError):
        await call(2, ApiError(Reason.IMAGE_DECODING_FAILED))
    with pytest.raises(asyncio.CancelledError):
        await call(4, asyncio.CancelledError())
    _, _, used = await limits.report("acme")
    assert (used.images, used.running) == (5, 0)
    await admission.close()


async def test_a_call_that_ends_while_the_store_does_not_answer_gives_its_place_back_later(redis, monkeypatch):
    usage, watch = Usage(redis), StoreWatch(SystemClock())
    admission = Admission(usage, watch, SystemClock())
    away = True
    leave = usage.leave

    async def unheard(tenant, call, *, refund):
        if away:
            raise ApiError(Reason.STORE_UNAVAILABLE)
        await leave(tenant, call, refund=refund)

    monkeypatch.setattr(usage, "leave", unheard)
    with pytest.raises(ApiError):
        async with admitted(admission, "acme", DEFAULTS, images=3):
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
    await asyncio.sleep(0.1)
    assert await usage.read("acme") == Used(3, 1, ANY)
    away = False
    async with asyncio.timeout(5):
        while (await usage.read("acme")).running:
            await asyncio.sleep(0.01)
    assert (await usage.read("acme")).images == 0
    await admission.close()


async def test_calls_beyond_the_concurrency_are_refused_and_those_that_run_longer_than_a_lease_are_not(redis, clock):
    usage, watch = Usage(redis), StoreWatch(clock)
    admission = Admission(usage, watch, clock, lease_s=0.3)
    release = asyncio.Event()

    async def call():
        async with admitted(admission, "acme", DEFAULTS, images=0):
            await release.wait()

    running = [asyncio.create_task(call()) for _ in range(DEFAULTS.concurrency)]
    await asyncio.sleep(0.7)  # two leases and more
    with pytest.raises(ApiError) as refusal:
        await call()
    assert refusal.value.reason is Reason.CONCURRENCY_EXCEEDED
    release.set()
    await asyncio.gather(*running)
    await call()
    await admission.close()


async def test_a_rate_is_plenty_until_a_request_of_the_last_second_left_less_than_half_of_the_burst(make, clock):
    limits, _, _ = make()
    # So slow that the bucket does not fill again meanwhile.
    known = replace(DEFAULTS, requests_per_second=1)
    assert limits.plenty("acme")
    for _ in range(50):
        await limits.take("acme", known)
    assert limits.plenty("acme")
    for _ in range(10):
        await limits.take("acme", known)
    assert not limits.plenty("acme")
    assert limits.plenty("other")
    clock.advance(1)
    assert limits.plenty("acme")


async def test_who_was_refused_is_likely_refused_again_for_a_second_and_beyond_the_quota_for_a_minute(make, clock):
    limits, _, admission = make()
    known = await limits.of("acme")
    async with contextlib.AsyncExitStack() as running:
        for _ in range(known.concurrency):
            await running.enter_async_context(admitted(admission, "acme", known, images=0))
        assert admission.likely("acme")
        with pytest.raises(ApiError):
            await running.enter_async_context(admitted(admission, "acme", known, images=0))
        assert not admission.likely("acme")
        assert admission.likely("other")
        clock.advance(1)
        assert admission.likely("acme")
    with pytest.raises(ApiError):
        async with admitted(admission, "other", known, images=known.images_per_day + 1):
            pass
    clock.advance(59)
    assert not admission.likely("other")
    clock.advance(1)
    assert admission.likely("other")
    await admission.close()
