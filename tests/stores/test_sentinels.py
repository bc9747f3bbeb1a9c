from __future__ import annotations

import asyncio

import pytest
from tests.faults.sentinel import watched

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.redis import check, connect
from camserve_server.stores.sentinels import sentinel_address

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://a:1", None),
        ("redis://a,[::1]:2?sentinel=x", "redis://a"),
        ("rediss://u:p@a:1/2?sentinel=x&y=1", "rediss://u:p@a:1/2?y=1"),
    ],
)
def test_an_address_names_a_server_or_sentinels(url, address):
    found = sentinel_address(url, 1.0)
    assert (found and found[0]) == address


def test_sentinels_are_no_socket():
    with pytest.raises(ValueError, match="sentinels"):
        connect("unix:///a.sock?sentinel=x")


async def test_without_a_sentinel_that_answers_the_store_is_away():
    client = connect("redis://127.0.0.1:1?sentinel=images")
    with pytest.raises(ApiError) as caught:
        await check(client)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await client.aclose()


async def test_the_replica_is_found_once_it_has_taken_over(tmp_path):
    with watched(tmp_path) as servers:
        client = connect(servers.url)
        await client.set("kept", "x")
        servers.replica.wait_for(servers.primary)
        servers.primary.kill()
        # The test's own time limit ends a hopeless wait.
        while not await _works(client):
            await asyncio.sleep(0.1)
        assert await client.get("kept") == b"x"
        assert servers.replica.ask("EXISTS", "camserve:check") == 1
        await client.aclose()


async def _works(client):
    try:
        await check(client)
    except ApiError:
        return False
    return True
