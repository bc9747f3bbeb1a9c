from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.model_routes import (
    Canary,
    Deprecation,
    Guard,
    RouteChange,
    RouteRecord,
    RouteRecords,
    Routes,
    Shadow,
)
from camserve_server.stores.redis import connect

FULL = Routes(
    aliases={"stable": "2", "next": "3"},
    previous={"stable": "1"},
    canary=Canary("3", "stable", 12.5, ("acme",), "key", 50.0, 1_800_000_000_000),
    pins={"widgets": "1"},
    shadow=Shadow("3", 5.0),
    guard=Guard(60, 20, 0.1),
    deprecations={"1": Deprecation(1_800_000_000, 1_810_000_000, "https://x.example/1", "2"), "0": Deprecation(1)},
)


@pytest.fixture
def records(redis):
    return RouteRecords(redis, Disk())


def step(revision, routes=FULL, model="shapes"):
    return model, RouteRecord(revision, routes), RouteChange(revision, 1000 * revision, "ann", f"step {revision}", "")


async def test_routes_come_back_as_they_were_written(records):
    assert await records.read(["shapes"]) == {}
    assert await records.marks() == {}
    assert await records.write(*step(1))
    assert await records.read(["shapes", "other"]) == {"shapes": RouteRecord(1, FULL)}
    assert await records.read([]) == {}


async def test_a_change_from_another_revision_changes_nothing(records):
    assert await records.write(*step(1))
    for revision in (1, 3):
        assert not await records.write(*step(revision, Routes()))
    assert (await records.read(["shapes"]))["shapes"].routes == FULL
    assert [change.revision for change in await records.changes("shapes")] == [1]


async def test_of_many_changes_at_once_one_is_made(records):
    made = await asyncio.gather(*(records.write(*step(1)) for _ in range(20)))
    assert sum(made) == 1


async def test_a_change_that_is_sent_again_is_made_once(redis, records, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda _: "same")
    assert await records.write(*step(1))
    assert await records.write(*step(1))
    assert [change.revision for change in await records.changes("shapes")] == [1]


async def test_a_mark_tells_every_state_from_every_other(redis, records):
    seen = set()
    for revision in range(1, 4):
        assert await records.write(*step(revision))
        seen.add((await records.marks())["shapes"])
    await redis.flushall()
    # What was lost is not what comes after, although both are revision 1.
    assert await records.write(*step(1))
    seen.add((await records.marks())["shapes"])
    assert len(seen) == 4


async def test_models_have_routes_of_their_own(records):
    assert await records.write(*step(1))
    assert await records.write(*step(1, Routes(), model="other"))
    assert set(await records.marks()) == {"shapes", "other"}
    assert await records.changes("none") == []


async def test_the_last_fifty_changes_are_kept(redis, records):
    for revision in range(1, 61):
        assert await records.write(*step(revision))
    assert [change.revision for change in await records.changes("shapes")] == list(range(60, 10, -1))
    assert await redis.llen(keys.model_route_changes("shapes")) == 50


async def test_what_a_later_release_has_added_is_left_out(redis, records):
    assert await records.write(*step(1))
    stored = orjson.loads(await redis.hget(keys.model_routes(), "shapes"))
    routes = stored["routes"]
    for part in (stored, routes, routes["canary"], routes["shadow"], routes["guard"]):
        part["added"] = 1
    routes["deprecations"]["1"]["added"] = 1
    await redis.hset(keys.model_routes(), "shapes", orjson.dumps(stored))
    assert await records.read(["shapes"]) == {"shapes": RouteRecord(1, FULL)}


async def test_records_of_a_release_before_guards_are_read(redis, records):
    assert await records.write(*step(1))
    stored = orjson.loads(await redis.hget(keys.model_routes(), "shapes"))
    del stored["routes"]["guard"]
    for name in ("shadow_percent", "since_ms"):
        del stored["routes"]["canary"][name]
    await redis.hset(keys.model_routes(), "shapes", orjson.dumps(stored))
    routes = (await records.read(["shapes"]))["shapes"].routes
    assert routes == replace(FULL, guard=None, canary=Canary("3", "stable", 12.5, ("acme",), "key"))


async def test_a_store_that_is_away_says_so():
    client = connect("redis://127.0.0.1:1", timeout_s=0.5)
    records = RouteRecords(client, Disk())
    for ask in (records.marks(), records.read(["shapes"]), records.changes("shapes"), records.write(*step(1))):
        with pytest.raises(ApiError) as caught:
            await ask
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await client.aclose()


async def test_all_keys_of_routes_lie_in_one_slot_of_a_cluster(redis, records):
    assert await records.write(*step(1, model="a.b-c"))
    names = {key.decode() for key in await redis.keys("*")}
    assert len(names) == 3
    assert all("{models}" in name for name in names)
    assert orjson.loads(await redis.hget(keys.model_routes(), "a.b-c"))["revision"] == 1
