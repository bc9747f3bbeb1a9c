"""OAuth clients: a secret opens its own client until it is revoked, and is nowhere to be read."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.cluster import primaries
from camserve_server.stores.oauth_clients import _ROTATE, FAILURES, FAILURES_COUNT_MS, OAuthClient, OAuthClients
from camserve_server.stores.redis import connect


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.5)


@pytest.fixture
def clients(redis: Redis, clock: FakeClock) -> OAuthClients:
    return OAuthClients(redis, clock=clock)


async def test_id_and_secret_open_the_client(clients: OAuthClients) -> None:
    client_id, secret = await clients.create("acme", ["inference.read", "inference.write"])
    assert re.fullmatch(r"client_[0-9A-Za-z]{22}", client_id)
    assert re.fullmatch(r"secret_[0-9A-Za-z]{43}", secret)
    expected = OAuthClient(client_id, "acme", ("inference.read", "inference.write"), 1000.5)
    assert await clients.verify(client_id, secret) == expected


async def test_wrong_secrets_and_unknown_ids_are_refused(clients: OAuthClients) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    other_id, other_secret = await clients.create("acme", ["a"])
    unknown = "client_" + "0" * 22
    for tried_id, tried_secret in (
        (client_id, other_secret),
        (other_id, secret),
        (client_id, ""),
        (client_id, secret + "x"),
        (client_id, "\ud800"),
        (unknown, secret),
        (unknown, ""),
        ("", ""),
        ("acme", secret),
        (client_id + "\n", secret),
        ("\ud800", secret),
    ):
        assert await clients.verify(tried_id, tried_secret) is None


async def test_neither_secret_nor_its_parts_are_stored(clients: OAuthClients, redis: Redis) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    record = await redis.hgetall(keys.oauth_client(client_id))
    assert secret.removeprefix("secret_").encode() not in b" ".join(record.values())


async def test_list_shows_the_tenants_own_clients_oldest_first(clients: OAuthClients, clock: FakeClock) -> None:
    made = []
    for _ in range(3):
        made.append((await clients.create("acme", ["a"]))[0])
        clock.advance(1)
    await clients.create("other", ["a"])
    assert [client.client_id for client in await clients.list("acme")] == made
    assert await clients.list("nobody") == []


async def test_revoked_client_is_gone(clients: OAuthClients, redis: Redis) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    assert await clients.revoke("acme", client_id)
    assert await clients.verify(client_id, secret) is None
    assert await clients.list("acme") == []
    assert not await clients.revoke("acme", client_id)
    names = [name for server in await primaries(redis) for name in await server.keys("*")]
    assert names == [keys.client_failures(client_id).encode()]


async def test_tenant_cannot_revoke_anothers_client(clients: OAuthClients) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    assert not await clients.revoke("other", client_id)
    assert await clients.verify(client_id, secret) is not None


async def test_client_whose_making_was_cut_short_is_not_listed(clients: OAuthClients, redis: Redis) -> None:
    await redis.sadd(keys.oauth_clients("acme"), "client_" + "1" * 22)
    assert await clients.list("acme") == []


async def test_tenants_with_odd_names_stay_apart(clients: OAuthClients) -> None:
    for tenant in ("a}b", "{a}", "a:b", "a", "名前"):
        client_id, secret = await clients.create(tenant, ["a"])
        client = await clients.verify(client_id, secret)
        assert client is not None
        assert client.tenant == tenant
        assert [listed.client_id for listed in await clients.list(tenant)] == [client_id]


async def test_a_rotated_secret_works_and_the_one_before_it_for_a_while(clients: OAuthClients) -> None:
    client_id, first = await clients.create("acme", ["a"])
    second = await clients.rotate("acme", client_id, overlap_ms=5000, now_ms=1000)
    assert second is not None
    assert second != first
    for secret, now_ms in ((second, 1000), (first, 5999), (second, 6000)):
        assert await clients.verify(client_id, secret, now_ms=now_ms) is not None
    assert await clients.verify(client_id, first, now_ms=6000) is None


async def test_without_an_overlap_the_old_secret_ends_at_once(clients: OAuthClients) -> None:
    client_id, first = await clients.create("acme", ["a"])
    second = await clients.rotate("acme", client_id, overlap_ms=0)
    assert second is not None
    assert await clients.verify(client_id, first) is None
    assert await clients.verify(client_id, second) is not None


async def test_of_the_secrets_before_only_the_last_one_works_on(clients: OAuthClients) -> None:
    client_id, first = await clients.create("acme", ["a"])
    second = await clients.rotate("acme", client_id, overlap_ms=5000)
    third = await clients.rotate("acme", client_id, overlap_ms=5000)
    assert second is not None
    assert third is not None
    assert await clients.verify(client_id, first) is None
    assert await clients.verify(client_id, second) is not None
    assert await clients.verify(client_id, third) is not None


async def test_a_rotation_that_is_sent_twice_counts_once(redis: Redis, clients: OAuthClients) -> None:
    client_id, first = await clients.create("acme", ["a"])
    for _ in range(2):
        digest = "0" * 64
        assert await _ROTATE.run(redis, [keys.oauth_client(client_id)], [0, "acme", digest, 5000]) == 1
    assert await clients.verify(client_id, first) is not None


async def test_nobody_rotates_what_is_not_theirs(clients: OAuthClients, redis: Redis) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    assert await clients.rotate("other", client_id, overlap_ms=0) is None
    assert await clients.rotate("acme", "client_" + "1" * 22, overlap_ms=0) is None
    assert await clients.verify(client_id, secret) is not None
    await clients.revoke("acme", client_id)
    assert await clients.rotate("acme", client_id, overlap_ms=0) is None
    assert await redis.keys("*") == []


async def fail(clients: OAuthClients, client_id: str, now_ms: int, count: int = 1) -> None:
    for _ in range(count):
        assert await clients.verify(client_id, "wrong", now_ms=now_ms) is None


async def wait_s(clients: OAuthClients, client_id: str, secret: str, now_ms: int) -> int:
    with pytest.raises(ApiError) as caught:
        await clients.verify(client_id, secret, now_ms=now_ms)
    assert caught.value.reason is Reason.RATE_EXCEEDED
    return int(caught.value.retry_after_s or 0)


async def test_after_ten_failures_within_a_minute_not_even_the_right_secret_is_looked_at(clients: OAuthClients) -> None:
    client_id, secret = await clients.create("acme", ["a"])
    await fail(clients, client_id, 1000, 9)
    assert await clients.verify(client_id, secret, now_ms=2000) is not None
    await fail(clients, client_id, 3000)
    for tried in (secret, "wrong"):
        assert await wait_s(clients, client_id, tried, 3001) == 58
    assert await wait_s(clients, client_id, secret, 60_999) == 1
    # Refused attempts count for nothing: the first failures are a minute old, whatever came meanwhile.
    assert await clients.verify(client_id, secret, now_ms=61_000) is not None
    await fail(clients, client_id, 61_000, 9)
    assert await wait_s(clients, client_id, secret, 61_000) == 2


async def test_an_unknown_client_is_refused_in_the_same_way(clients: OAuthClients, redis: Redis) -> None:
    for unknown in ("client_" + "0" * 22, "x", "", "x" * 100_000, "\ud800"):
        await fail(clients, unknown, 1000, 10)
        assert await wait_s(clients, unknown, "wrong", 1001) == 60
    assert max(len(key) for key in await redis.keys("*")) < 100


async def test_clients_are_counted_one_by_one(clients: OAuthClients) -> None:
    client_id, _ = await clients.create("acme", ["a"])
    other_id, other_secret = await clients.create("acme", ["a"])
    await fail(clients, client_id, 1000, 10)
    assert await clients.verify(other_id, other_secret, now_ms=1000) is not None


async def test_attempts_at_the_same_time_from_several_replicas_are_counted_exactly(
    redis_url: str, redis: Redis
) -> None:
    replicas = [connect(redis_url) for _ in range(3)]
    clients = [OAuthClients(each, clock=FakeClock()) for each in replicas]
    client_id, secret = await clients[0].create("acme", ["a"])
    right = await asyncio.gather(*(clients[n % 3].verify(client_id, secret) for n in range(60)))
    assert all(right)
    attempts = (clients[n % 3].verify(client_id, "wrong") for n in range(60))
    answers = await asyncio.gather(*attempts, return_exceptions=True)
    assert answers.count(None) == FAILURES
    reasons = [answer.reason for answer in answers if isinstance(answer, ApiError)]
    assert reasons == [Reason.RATE_EXCEEDED] * (60 - FAILURES)
    for each in replicas:
        await each.aclose()


async def test_failures_are_forgotten_by_themselves(clients: OAuthClients, redis: Redis) -> None:
    await clients.verify("x", "wrong")
    (key,) = await redis.keys("*")
    assert 0 < await redis.pttl(key) <= FAILURES_COUNT_MS


async def test_without_a_server_every_call_is_store_unavailable(tmp_path: Path, clock: FakeClock) -> None:
    redis = connect(f"unix://{tmp_path}/none")
    clients = OAuthClients(redis, clock=clock)
    for call in (
        clients.create("acme", ["a"]),
        clients.verify("client_" + "0" * 22, ""),
        clients.list("acme"),
        clients.revoke("acme", ""),
        clients.rotate("acme", "", overlap_ms=0),
    ):
        with pytest.raises(ApiError) as caught:
            await call
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await redis.aclose()
