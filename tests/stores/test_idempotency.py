from __future__ import annotations

from dataclasses import dataclass

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.cluster import primaries
from camserve_server.stores.durability import Disk
from camserve_server.stores.idempotency import KEPT_MS, Hold, IdempotencyKeys, Standing, Taken
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.redis import connect
from camserve_server.stores.sealing import Sealer

NOW = 1_800_000_000_000
LEASE = 30_000


@pytest.fixture
def sealer(tmp_path):
    return Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "idempotency")


@pytest.fixture
def store(redis, sealer):
    return IdempotencyKeys(redis, sealer, Disk())


@dataclass
class Held:
    """A key that a call has, with the nonce that it got."""

    hold: Hold
    nonce: str
    first: bool


async def begin(store, *, tenant="a", operation="infer", key="k", fingerprint=b"one", at=NOW):
    hold = store.hold(tenant, operation, key)
    begun = await store.begin(hold, fingerprint, lease_ms=LEASE, now_ms=at)
    return Held(hold, begun.nonce, begun.first) if isinstance(begun, Taken) else begun


async def test_an_answer_is_given_again(store):
    hold = await begin(store)
    assert isinstance(hold, Held)
    assert await store.finish(hold.hold, b"answer")
    assert await begin(store) == b"answer"
    assert await begin(store, at=NOW + 10 * LEASE) == b"answer"


async def test_a_key_belongs_to_a_tenant_and_an_operation(store):
    await store.finish((await begin(store)).hold, b"answer")
    for other in ({"tenant": "b"}, {"operation": "create_job"}, {"key": "k2"}):
        assert isinstance(await begin(store, **other), Held)


async def test_another_request_may_not_use_the_key_before_or_after_the_answer(store):
    hold = await begin(store)
    assert await begin(store, fingerprint=b"two") is Standing.REUSED
    await store.finish(hold.hold, b"answer")
    assert await begin(store, fingerprint=b"two") is Standing.REUSED


async def test_the_same_request_runs_once_at_a_time(store):
    hold = await begin(store)
    assert await begin(store, at=NOW + LEASE - 1) is Standing.RUNNING
    assert await store.renew(hold.hold, lease_ms=LEASE, now_ms=NOW + LEASE - 1)
    assert await begin(store, at=NOW + 2 * LEASE - 2) is Standing.RUNNING


async def test_a_silent_holder_loses_the_key_to_an_attempt_with_the_same_nonce(store):
    lost = await begin(store)
    taken = await begin(store, at=NOW + LEASE)
    assert isinstance(taken, Held)
    assert taken.nonce == lost.nonce
    assert (lost.first, taken.first) == (True, False)
    assert not await store.renew(lost.hold, lease_ms=LEASE)
    assert not await store.finish(lost.hold, b"late")
    assert await store.finish(taken.hold, b"answer")
    assert await begin(store, at=NOW + LEASE) == b"answer"


async def test_after_a_crash_another_request_gets_a_nonce_of_its_own(store):
    lost = await begin(store)
    taken = await begin(store, fingerprint=b"two", at=NOW + LEASE)
    assert taken.nonce != lost.nonce


async def test_a_forgotten_key_is_new_and_a_released_one_keeps_its_nonce(store):
    first = await begin(store)
    await store.release(first.hold, forget=False)
    second = await begin(store)
    assert second.nonce == first.nonce
    await store.release(first.hold, forget=True)
    assert await begin(store) is Standing.RUNNING
    await store.release(second.hold, forget=True)
    assert (await begin(store, fingerprint=b"two")).nonce != first.nonce


async def test_an_answer_is_not_released(store):
    hold = await begin(store)
    await store.finish(hold.hold, b"answer")
    await store.release(hold.hold, forget=True)
    assert await store.finish(hold.hold, b"another")
    assert await begin(store) == b"answer"


async def test_records_end_after_a_day_and_show_neither_key_nor_answer(redis, store):
    await store.finish((await begin(store, key="caller's key")).hold, b"the answer")
    (name,) = [name for server in await primaries(redis) for name in await server.keys("*idempotency*")]
    assert 0 < await redis.pttl(name) <= KEPT_MS
    kept = name + b"".join((await redis.hgetall(name)).values())
    assert b"caller" not in kept
    assert b"answer" not in kept


async def test_without_the_store_nothing_runs(sealer, tmp_path):
    async with connect(f"unix://{tmp_path}/nothing.sock") as redis:
        with pytest.raises(ApiError) as caught:
            await begin(IdempotencyKeys(redis, sealer, Disk()))
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
