"""OAuth clients: a secret opens its own client until it is revoked, and is nowhere to be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.oauth_clients import OAuthClient, OAuthClients
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
    assert await redis.keys("*") == []


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


async def test_without_a_server_every_call_is_store_unavailable(tmp_path: Path, clock: FakeClock) -> None:
    redis = connect(f"unix://{tmp_path}/none")
    clients = OAuthClients(redis, clock=clock)
    for call in (
        clients.create("acme", ["a"]),
        clients.verify("client_" + "0" * 22, ""),
        clients.list("acme"),
        clients.revoke("acme", ""),
    ):
        with pytest.raises(ApiError) as caught:
            await call
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await redis.aclose()
