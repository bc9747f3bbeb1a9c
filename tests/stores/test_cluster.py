from __future__ import annotations

import pytest
from redis.exceptions import ResponseError
from tests.faults.cluster import cluster
from tests.faults.valkey import valkey
from tests.stores.test_jobs import submit

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.cluster import ClusterRedis, cluster_addresses, pieces, primaries, slot_of
from camserve_server.stores.durability import ClusterNotNamedError, Disk, check_whole, needs_wait
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.redis import connect
from camserve_server.stores.usage import Usage

pytestmark = pytest.mark.timeout(120)
TENANTS = [f"tenant-{number}" for number in range(24)]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
async def redis(nodes):
    client = connect(nodes.url)
    yield client
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("redis://a:1", None),
        ("unix:///a,b/c.sock", None),
        ("redis://a:1?cluster=true", ["redis://a:1"]),
        ("rediss://u:p@a:1,[::1]:2/0?cluster=true&x=1", ["rediss://u:p@a:1?x=1", "rediss://u:p@[::1]:2?x=1"]),
    ],
)
def test_an_address_names_a_server_or_nodes_of_a_cluster(url, addresses):
    assert cluster_addresses(url) == addresses


@pytest.mark.parametrize("url", ["redis://a:1,b:2", "redis://a:1/3?cluster=true", "unix:///a.sock?cluster=true"])
def test_an_address_that_is_neither_is_refused(url):
    with pytest.raises(ValueError, match="cluster"):
        connect(url)


def test_all_keys_of_a_tenant_are_of_one_slot():
    names = [keys.jobs("a"), keys.rate("a"), keys.limits("a"), keys.upload("a", "x"), keys.outbox("a", "x")]
    assert len({slot_of(("GET", name)) for name in names}) == 1
    assert slot_of(("EVALSHA", "0" * 40, 1, keys.tenant("a"), "x")) == slot_of(("GET", names[0]))
    assert slot_of(("CONFIG GET", "appendonly")) is None


async def test_tenants_are_spread_over_the_nodes_and_each_finds_its_own(redis, nodes):
    usage = Usage(redis)
    for tenant in TENANTS:
        await usage.take(tenant, rate=1, burst=10)
    kept = [node.ask("DBSIZE") for node in nodes.primaries]
    assert all(kept)
    for tenant in TENANTS:
        assert await redis.exists(keys.rate(tenant)) == 1


async def test_replies_of_a_pipeline_over_several_slots_are_in_its_order(redis):
    pipe = redis.pipeline(transaction=False)
    for tenant in TENANTS:
        pipe.set(keys.callback_secret(tenant), tenant)
        pipe.get(keys.callback_secret(tenant))
    assert len(pieces(pipe)) == len({slot_of(("GET", keys.callback_secret(tenant))) for tenant in TENANTS})
    replies = await pipe.execute()
    assert [reply.decode() for reply in replies[1::2]] == TENANTS


async def test_what_must_be_on_the_disk_is_waited_for_at_each_node(redis, nodes, sealer):
    jobs = Jobs(redis, sealer, Disk(wait=True), Outbox(redis))
    await submit(jobs, 1)
    # The tenant's own node keeps it, that of the ring does not.
    ring = next(
        node for node in nodes.primaries if node.ask("CLUSTER", "COUNTKEYSINSLOT", slot_of(("GET", keys.ring())))
    )
    ring.ask("CONFIG", "SET", "appendonly", "no")
    try:
        with pytest.raises(ApiError) as caught:
            await submit(jobs, 1)
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    finally:
        ring.ask("CONFIG", "SET", "appendonly", "yes")


async def test_one_node_that_does_not_sync_each_write_makes_writes_wait(redis, nodes):
    assert await needs_wait(redis) is False
    nodes.primaries[1].ask("CONFIG", "SET", "appendfsync", "everysec")
    try:
        assert await needs_wait(redis) is True
    finally:
        nodes.primaries[1].ask("CONFIG", "SET", "appendfsync", "always")


async def test_a_slot_that_moves_to_another_node_is_found_there(redis, nodes):
    name = keys.callback_secret("moves")
    await redis.set(name, "kept")
    slot = slot_of(("GET", name))
    source = next(node for node in nodes.primaries if node.ask("CLUSTER", "COUNTKEYSINSLOT", slot))
    target = next(node for node in nodes.primaries if node is not source)
    ids = {node: node.ask("CLUSTER", "MYID") for node in (source, target)}
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    source.ask("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    assert await redis.get(name) == b"kept"
    pipe = redis.pipeline(transaction=True)
    pipe.get(name)
    assert await pipe.execute() == [b"kept"]


async def test_a_transaction_over_several_slots_is_refused(redis):
    pipe = redis.pipeline(transaction=True)
    for tenant in TENANTS:
        pipe.get(keys.callback_secret(tenant))
    with pytest.raises(ValueError, match="several slots"):
        await pipe.execute()


async def test_an_error_of_a_command_is_the_callers(redis):
    await redis.set(keys.callback_secret("a"), "text")
    with pytest.raises(ResponseError):
        await redis.lpush(keys.callback_secret("a"), "x")


async def test_a_node_of_a_cluster_is_no_single_server(nodes):
    client = connect(f"redis://127.0.0.1:{nodes.primaries[0].port}")
    with pytest.raises(ClusterNotNamedError, match="cluster=true"):
        await check_whole(client)
    await client.aclose()


async def test_a_single_server_is_whole(tmp_path):
    with valkey(tmp_path / "one") as store:
        client = connect(store.url)
        await check_whole(client)
        assert await primaries(client) == [client]
        await client.aclose()


async def test_a_cluster_that_is_away_is_store_unavailable():
    client = connect("redis://127.0.0.1:1?cluster=true")
    assert isinstance(client, ClusterRedis)
    with pytest.raises(ApiError) as caught:
        await needs_wait(client)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await client.aclose()
