from __future__ import annotations

import asyncio

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.idempotency import Idempotency
from camserve_server.stores.durability import Disk
from camserve_server.stores.idempotency import IdempotencyKeys
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.sealing import Sealer

LEASE_S = 1.5


@pytest.fixture
async def replica(redis, tmp_path):
    clock = FakeClock()
    sealer = Sealer(KeyRing(tmp_path / "state.json", clock=clock), "idempotency")
    objects = LocalObjects(tmp_path / "objects", KeyRing(tmp_path / "objects.json", clock=clock), clock=clock)
    yield Idempotency(IdempotencyKeys(redis, sealer, Disk()), objects, clock, lease_s=LEASE_S)
    await objects.close()


def run(replica, execute, fingerprint=b"request"):
    return replica.run("tenant", "infer", "key", fingerprint, execute)


async def test_a_hundred_at_once_are_one_execution(replica):
    begun = 0

    async def execute(_):
        nonlocal begun
        begun += 1
        await asyncio.sleep(1.5 * LEASE_S)  # longer than a lease: it is renewed meanwhile
        return b"answer"

    outcomes = await asyncio.gather(*(run(replica, execute) for _ in range(100)), return_exceptions=True)
    assert begun == 1
    assert outcomes.count((b"answer", False)) == 1
    refused = [outcome.reason for outcome in outcomes if isinstance(outcome, ApiError)]
    assert refused == [Reason.IDEMPOTENCY_IN_PROGRESS] * 99
    assert await run(replica, execute) == (b"answer", True)


async def test_a_large_answer_comes_back_whole(replica):
    answer = bytes(range(256)) * 4096

    async def execute(_):
        return answer

    assert await run(replica, execute) == (answer, False)
    assert await run(replica, execute) == (answer, True)


@pytest.mark.parametrize(
    ("error", "same_nonce"),
    [
        (ApiError(Reason.PARAM_INVALID), False),
        (ApiError(Reason.STORE_UNAVAILABLE), True),
        (RuntimeError("a bug"), True),
        (asyncio.CancelledError(), True),
    ],
)
async def test_what_fails_may_be_sent_again_at_once(replica, error, same_nonce):
    nonces = []

    async def fail(nonce):
        nonces.append(nonce)
        raise error

    async def succeed(nonce):
        nonces.append(nonce)
        return b"answer"

    with pytest.raises(type(error)):
        await run(replica, fail)
    await replica.close()
    assert await run(replica, succeed) == (b"answer", False)
    assert (nonces[0] == nonces[1]) == same_nonce


async def test_a_refusal_is_told_when_its_key_is_free(replica, monkeypatch):
    release = IdempotencyKeys.release

    async def later(self, hold, *, forget):
        await asyncio.sleep(0.05)
        await release(self, hold, forget=forget)

    monkeypatch.setattr(IdempotencyKeys, "release", later)

    async def refuse(_):
        raise ApiError(Reason.PARAM_INVALID)

    async def succeed(_):
        return b"answer"

    with pytest.raises(ApiError):
        await run(replica, refuse)
    assert await run(replica, succeed, b"corrected") == (b"answer", False)


async def test_who_lost_the_key_meanwhile_does_not_answer(replica, redis):
    async def execute(_):
        (name,) = await redis.keys("*idempotency*")
        await redis.hset(name, mapping={"holder": "another replica"})
        return b"late"

    with pytest.raises(ApiError) as caught:
        await run(replica, execute)
    assert caught.value.reason is Reason.IDEMPOTENCY_IN_PROGRESS


async def test_a_nonce_is_kept_through_a_refusal_that_follows_a_failure(replica):
    nonces = []

    def fail(error):
        async def execute(nonce):
            nonces.append(nonce)
            raise error

        return execute

    # The first attempt may have made a job although it failed, so the last one must not make another.
    for error in (ApiError(Reason.STORE_UNAVAILABLE), ApiError(Reason.MODEL_VERSION_NOT_FOUND)):
        with pytest.raises(ApiError):
            await run(replica, fail(error))
        await replica.close()

    async def succeed(nonce):
        nonces.append(nonce)
        return b"answer"

    await run(replica, succeed)
    assert len(set(nonces)) == 1


async def test_a_call_that_is_left_while_it_takes_its_key_does_not_keep_it(replica):
    async def execute(_):
        return b"answer"

    for moment in range(30):
        task = asyncio.create_task(replica.run("tenant", "infer", f"key {moment}", b"request", execute))
        for _ in range(moment):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await replica.close()
        await replica.run("tenant", "infer", f"key {moment}", b"request", execute)
