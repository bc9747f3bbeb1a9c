from __future__ import annotations

import pytest

from camserve_server.stores.usage import Refusal, Usage

DAY_MS = 86_400_000
NOON = 20_000 * DAY_MS + DAY_MS // 2
SIZES = {"images_per_day": 10, "concurrency": 2, "lease_ms": 1000}


@pytest.fixture
def usage(redis):
    return Usage(redis)


async def take(usage, now_ms, tenant="acme", **options):
    return await usage.take(tenant, rate=4, burst=6, now_ms=now_ms, **options)


async def test_a_bucket_holds_its_burst_and_gains_its_rate(usage):
    assert [(await take(usage, NOON)).remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    refused = await take(usage, NOON)
    assert (refused.passes, refused.remaining, refused.next_in_ms, refused.full_in_ms) == (False, 0, 250, 1500)
    assert not (await take(usage, NOON + 249)).passes
    assert (await take(usage, NOON + 250)).passes
    assert (await take(usage, NOON + 10_000)).remaining == 5


async def test_over_ten_seconds_no_more_pass_than_the_burst_and_the_rate(usage):
    passed = 0
    for ms in range(0, 10_000, 7):
        passed += (await take(usage, NOON + ms)).passes
    assert passed in (45, 46)  # 6 at once and 4 a second of 9.996


async def test_looking_takes_nothing(usage):
    await take(usage, NOON)
    assert [(await take(usage, NOON, look=True)).remaining for _ in range(3)] == [5, 5, 5]


async def test_what_was_taken_is_given_back_up_to_the_burst(usage):
    for _ in range(2):
        await take(usage, NOON)
    for _ in range(3):
        await usage.give_back("acme", rate=4, burst=6, now_ms=NOON)
    assert (await take(usage, NOON)).remaining == 5


async def test_a_clock_that_goes_back_gains_nothing(usage):
    for _ in range(6):
        await take(usage, NOON)
    assert not (await take(usage, NOON - 60_000)).passes


async def test_buckets_of_tenants_are_their_own(usage):
    for _ in range(6):
        await take(usage, NOON)
    assert (await take(usage, NOON, tenant="other")).remaining == 5


async def test_images_count_until_the_day_ends(usage):
    assert await usage.admit("acme", "a", images=8, now_ms=NOON, **SIZES) is None
    assert await usage.admit("acme", "b", images=3, now_ms=NOON, **SIZES) == Refusal("quota", DAY_MS // 2)
    assert (await usage.read("acme", now_ms=NOON)).images == 8
    assert await usage.admit("acme", "b", images=3, now_ms=NOON + DAY_MS // 2, **SIZES) is None
    used = await usage.read("acme", now_ms=NOON + DAY_MS // 2)
    assert (used.images, used.resets_s) == (3, (NOON + DAY_MS // 2 + DAY_MS) // 1000)


async def test_a_call_is_charged_once_however_often_it_is_sent(usage):
    for _ in range(3):
        assert await usage.admit("acme", "a", images=4, now_ms=NOON, **SIZES) is None
    assert (await usage.read("acme", now_ms=NOON)).images == 4


async def test_a_refund_gives_back_what_was_charged_and_only_once(usage):
    await usage.admit("acme", "a", images=4, now_ms=NOON, **SIZES)
    await usage.admit("acme", "b", images=1, now_ms=NOON, **SIZES)
    for _ in range(2):
        await usage.leave("acme", "a", refund=True)
        await usage.leave("acme", "b", refund=False)
    used = await usage.read("acme", now_ms=NOON)
    assert (used.images, used.running) == (1, 0)


async def test_no_more_calls_run_than_may(usage):
    assert await usage.admit("acme", "a", images=0, now_ms=NOON, **SIZES) is None
    assert await usage.admit("acme", "b", images=0, now_ms=NOON, **SIZES) is None
    assert await usage.admit("acme", "c", images=1, now_ms=NOON, **SIZES) == Refusal("concurrency")
    assert (await usage.read("acme", now_ms=NOON)).images == 0
    # One that runs may still be charged.
    assert await usage.admit("acme", "a", images=1, now_ms=NOON, **SIZES) is None
    await usage.leave("acme", "b", refund=False)
    assert await usage.admit("acme", "c", images=1, now_ms=NOON, **SIZES) is None


async def test_calls_of_a_silent_process_are_let_go_and_renewed_ones_are_not(usage):
    for call in ("a", "b"):
        await usage.admit("acme", call, images=0, now_ms=NOON, **SIZES)
    await usage.renew("acme", ["a", "gone"], lease_ms=1000, now_ms=NOON + 900)
    assert (await usage.read("acme", now_ms=NOON + 1001)).running == 1
    assert (await usage.read("acme", now_ms=NOON + 1901)).running == 0


async def test_all_that_is_counted_goes_by_itself(usage, redis):
    await take(usage, NOON)
    await usage.admit("acme", "a", images=1, now_ms=NOON, **SIZES)
    async for key in redis.scan_iter():
        assert await redis.pttl(key) > 0, key
