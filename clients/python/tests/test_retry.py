"""When calls are tried again, by a clock that the test sets."""

from __future__ import annotations

import random

import pytest
from clients.python.tests.clock import FakeClock, Longest

from camserve_client import Backoff, CamserveError
from camserve_client.retry import Retries

BUSY = CamserveError("service.overloaded", "", status=503)


def refusing(times, error=BUSY):
    """An attempt that fails so many times, and says how often it was made."""
    made = []

    async def attempt(tries):
        made.append(tries.left_s)
        if len(made) <= times:
            raise error
        return len(made)

    return attempt, made


def retries(rng=None):
    clock = FakeClock()
    return Retries(Backoff(), clock, rng or Longest()), clock


async def test_pauses_double_from_half_a_second_to_half_a_minute():
    policy, clock = retries()
    attempt, _ = refusing(9)
    assert await policy.run(attempt, timeout_s=None, repeatable=True) == 10
    assert clock.slept == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


async def test_jitter_is_full():
    policy, clock = retries(random.Random(7))
    attempt, _ = refusing(400)
    await policy.run(attempt, timeout_s=None, repeatable=True)
    long = clock.slept[6:]
    assert min(long) < 1
    assert 29 < max(long) <= 30
    assert 13 < sum(long) / len(long) < 17


async def test_what_the_service_says_comes_before_the_random_time():
    policy, clock = retries()
    attempt, _ = refusing(2, CamserveError("rate.exceeded", "", status=429, retry_after_s=7))
    await policy.run(attempt, timeout_s=60, repeatable=True)
    assert clock.slept == [7.5, 8]


async def test_no_attempt_begins_after_the_deadline():
    policy, clock = retries()
    attempt, made = refusing(99)
    with pytest.raises(CamserveError) as refused:
        await policy.run(attempt, timeout_s=5, repeatable=True)
    assert refused.value is BUSY
    assert clock.slept == [0.5, 1, 2]
    assert made == [5, 4.5, 3.5, 1.5]


async def test_a_longer_wait_than_there_is_time_is_not_begun():
    policy, clock = retries()
    spent = CamserveError("quota.exceeded", "", status=429, retry_after_s=40_000)
    attempt, made = refusing(1, spent)
    with pytest.raises(CamserveError) as refused:
        await policy.run(attempt, timeout_s=60, repeatable=True)
    assert refused.value is spent
    assert (clock.slept, len(made)) == ([], 1)


@pytest.mark.parametrize(
    "error",
    [
        CamserveError("model.not_found", "", status=404),
        CamserveError("idempotency.key_reused", "", status=422),
        CamserveError("body.too_large", "", status=413),
        CamserveError("answer.invalid", ""),
        CamserveError("internal", "", status=500),
        CamserveError("job.already_completed", "", status=409),
    ],
    ids=lambda error: error.code,
)
async def test_what_cannot_pass_is_not_tried_again(error):
    policy, clock = retries()
    attempt, made = refusing(1, error)
    with pytest.raises(CamserveError):
        await policy.run(attempt, timeout_s=60, repeatable=True)
    assert (clock.slept, len(made)) == ([], 1)


@pytest.mark.parametrize(
    "error",
    [
        CamserveError("connection.failed", ""),
        CamserveError("idempotency.in_progress", "", status=409, retry_after_s=1),
        CamserveError("upstream.failed", "", status=502),
        CamserveError("store.unavailable", "", status=503),
        CamserveError("timeout.exceeded", "", status=504),
    ],
    ids=lambda error: error.code,
)
async def test_what_may_pass_is_tried_again(error):
    policy, _ = retries()
    attempt, made = refusing(1, error)
    await policy.run(attempt, timeout_s=60, repeatable=True)
    assert len(made) == 2


async def test_what_may_run_twice_is_not_tried_again():
    policy, clock = retries()
    attempt, made = refusing(1)
    with pytest.raises(CamserveError):
        await policy.run(attempt, timeout_s=60, repeatable=False)
    assert (clock.slept, len(made)) == ([], 1)


async def test_progress_begins_the_pauses_and_the_time_again():
    policy, clock = retries()
    tries = policy.started(10)
    await tries.pause_after(BUSY)
    await tries.pause_after(BUSY)
    tries.restart()
    assert tries.left_s == 10
    await tries.pause_after(BUSY)
    assert clock.slept == [0.5, 1, 0.5]
