from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.routing import TENANTS, chosen, reason
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core import model_route_changes as changes
from camserve_server.core.model_routes import ModelRoutes, takes
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.stores.durability import Disk
from camserve_server.stores.model_routes import Canary, RouteChange, RouteRecord, RouteRecords, Routes
from camserve_server.stores.redis import connect


async def test_without_a_record_the_manifests_aliases_hold(replica):
    routes, _ = replica()
    await routes.look()
    assert (chosen(routes), chosen(routes, "stable"), chosen(routes, "next"), chosen(routes, "1")) == (
        *("2", "2", "3"),
        "1",
    )
    assert routes.of("tiny").revision == 0


async def test_a_promotion_moves_an_alias_and_no_other(replica):
    routes, admin = replica()
    before, after = await admin.make("tiny", changes.promote("1"), by="ann")
    assert (before.revision, after.revision) == (0, 1)
    assert before.routes.aliases == {"stable": "2", "next": "3"}
    assert after.routes.aliases == {"stable": "1", "next": "3"}
    assert (chosen(routes), chosen(routes, "next"), chosen(routes, "2")) == ("1", "3", "2")


async def test_a_version_that_is_named_comes_before_a_pin_that_before_the_canary_and_that_before_the_alias(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.pin("acme", "1"), by="ann")
    await admin.make("tiny", changes.canary(Canary("3", "stable", 100.0)), by="ann")
    assert chosen(routes) == "3"
    assert chosen(routes, tenant="acme") == "1"
    assert chosen(routes, "next", tenant="acme") == "1"
    assert chosen(routes, "2", tenant="acme") == "2"
    # A canary is of its alias only.
    assert chosen(routes, "next") == "3"
    await admin.make("tiny", changes.canary(Canary("1", "next", 100.0)), by="ann")
    assert (chosen(routes), chosen(routes, "next")) == ("2", "1")


async def test_a_version_that_is_named_answers_whatever_has_been_an_alias(replica, redis):
    routes, admin = replica()
    # As they were written before there were versions of these names.
    record, change = RouteRecord(1, Routes({"stable": "2", "3": "2"})), RouteChange(1, 0, "ann", "", "")
    await RouteRecords(redis, Disk()).write("tiny", record, change)
    await routes.look()
    assert (chosen(routes, "3"), chosen(routes)) == ("3", "2")
    await admin.make("tiny", changes.pin("acme", "1"), by="ann")
    await admin.make("tiny", changes.canary(Canary("1", "3", 100.0)), by="ann")
    assert (chosen(routes, "3", tenant="acme"), chosen(routes, "3")) == ("3", "3")
    assert routes.aliases("tiny") == {"stable": "2", "next": "3"}


async def test_a_version_called_stable_answers_nobody(redis, tmp_path):
    for version in ("1", "stable"):
        write_model(tmp_path, version=version, top="aliases = []" if version == "stable" else 'aliases = ["stable"]')
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1, max_batch=2))
    await engine.start()
    try:
        routes = ModelRoutes(RouteRecords(redis, Disk()), engine)
        assert (chosen(routes), chosen(routes, "stable")) == ("1", "1")
    finally:
        await engine.close()


async def test_a_pin_holds_for_an_alias_that_only_a_manifest_knows(replica, engine, monkeypatch):
    routes, admin = replica()
    await admin.make("tiny", changes.pin("acme", "1"), by="ann")
    # A version that came later, with an alias of its own.
    resolve = engine.resolve
    monkeypatch.setattr(engine, "resolve", lambda model, asked: resolve(model, "3" if asked == "new" else asked))
    assert (chosen(routes, "new", tenant="acme"), chosen(routes, "new")) == ("1", "3")


async def test_a_canary_takes_its_tenants_whatever_its_percentage(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.canary(Canary("3", "stable", 0.0, ("acme",))), by="ann")
    assert (chosen(routes), chosen(routes, tenant="acme")) == ("2", "3")


@pytest.fixture
def fail(engine, monkeypatch):
    """Makes a version one that cannot be asked, for a reason."""
    resolve = engine.resolve

    def make(version, why=Reason.MODEL_UNAVAILABLE):
        def failing(model, asked):
            if asked == version:
                raise ApiError(why)
            return resolve(model, asked)

        monkeypatch.setattr(engine, "resolve", failing)

    return make


async def test_a_canary_that_is_not_ready_here_leaves_its_calls_to_the_alias(replica, fail):
    routes, admin = replica()
    await admin.make("tiny", changes.canary(Canary("3", "stable", 100.0)), by="ann")
    assert chosen(routes) == "3"
    fail("3")
    assert chosen(routes) == "2"


@pytest.mark.parametrize("why", [Reason.MODEL_UNAVAILABLE, Reason.MODEL_VERSION_NOT_FOUND])
async def test_a_pin_to_a_version_that_is_not_here_is_unavailable_and_never_another_version(replica, fail, why):
    routes, admin = replica()
    await admin.make("tiny", changes.pin("acme", "3"), by="ann")
    fail("3", why)
    with pytest.raises(ApiError) as caught:
        chosen(routes, tenant="acme")
    assert reason(caught) is Reason.MODEL_UNAVAILABLE


async def test_a_version_that_is_gone_names_its_successor(replica, engine, fail, monkeypatch):
    routes, admin = replica()

    def refused(version):
        fail(version, Reason.MODEL_VERSION_NOT_FOUND)
        with pytest.raises(ApiError) as caught:
            chosen(routes, version)
        assert reason(caught) is Reason.MODEL_VERSION_NOT_FOUND
        return caught.value.details

    # Retired: listed, but not found.
    assert refused("1") == {"successor": "2"}
    assert refused("never") == {}
    await admin.make("tiny", changes.deprecate("1", changes.Deprecation(1)), by="ann")
    await admin.make("tiny", changes.deprecate("3", changes.Deprecation(1, successor="1")), by="ann")
    await admin.make("tiny", changes.promote("3"), by="ann")
    left = [each for each in engine.models() if each.version not in ("1", "3")]
    monkeypatch.setattr(engine, "models", lambda: left)
    assert (refused("1"), refused("3")) == ({"successor": "3"}, {"successor": "1"})
    assert refused("never") == {}


async def test_who_is_led_to_a_retired_version_is_told_so_and_what_follows_it(replica, engine, fail, monkeypatch):
    routes, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann")
    await admin.make("tiny", changes.pin("acme", "3"), by="ann")
    await admin.make("tiny", changes.deprecate("3", changes.Deprecation(1, successor="2")), by="ann")
    models = [changes.replace(each, state="retired") if each.version in "13" else each for each in engine.models()]
    monkeypatch.setattr(engine, "models", lambda: models)
    for version, tenant, details in (("1", "anybody", {}), ("3", "acme", {"successor": "2"})):
        fail(version, Reason.MODEL_VERSION_NOT_FOUND)
        with pytest.raises(ApiError) as caught:
            chosen(routes, tenant=tenant)
        assert (reason(caught), caught.value.details) == (Reason.MODEL_VERSION_NOT_FOUND, details)


async def test_no_successor_is_named_that_is_retired_or_the_version_itself(replica, engine, fail, monkeypatch):
    routes, admin = replica()
    await admin.make("tiny", changes.deprecate("1", changes.Deprecation(1, successor="3")), by="ann")

    def told(asked, *retired):
        listed = [changes.replace(each, state="retired") if each.version in retired else each for each in models]
        monkeypatch.setattr(engine, "models", lambda: listed)
        fail(asked, Reason.MODEL_VERSION_NOT_FOUND)
        with pytest.raises(ApiError) as caught:
            chosen(routes, asked)
        return caught.value.details

    models = engine.models()
    assert told("1", "1", "3") == {"successor": "2"}
    assert told("1", "1", "2", "3") == {}
    assert told("2", "2") == {}


async def test_versions_to_which_routes_lead_or_led_before_are_needed(replica, engine):
    routes, admin = replica()

    def needed():
        return {each.version for each in engine.models() if routes.leads_to(each)}

    assert needed() == {"2", "3"}
    await admin.make("tiny", changes.promote("1"), by="ann")
    assert needed() == {"1", "2", "3"}
    # The one before the last is not: a rollback leads to 1.
    await admin.make("tiny", changes.promote("3"), by="ann")
    assert needed() == {"1", "3"}
    for edit, undo in (
        (changes.pin("acme", "2"), changes.unpin("acme")),
        (changes.shadow(changes.Shadow("2", 1.0)), changes.shadow(None)),
        (changes.canary(Canary("2", "stable", 1.0)), changes.canary(None)),
    ):
        await admin.make("tiny", edit, by="ann")
        assert needed() == {"1", "2", "3"}
        await admin.make("tiny", undo, by="ann")
        assert needed() == {"1", "3"}


async def test_another_replica_follows_within_two_seconds(replica):
    _, admin = replica()
    theirs, _ = replica()
    await theirs.start()
    try:
        await admin.make("tiny", changes.promote("1"), by="ann")
        async with asyncio.timeout(2):
            while chosen(theirs) != "1":
                await asyncio.sleep(0.01)
    finally:
        await theirs.close()


async def test_without_the_store_the_last_routes_hold_and_a_start_fails(replica, redis_url, redis):
    client = connect(redis_url)
    routes, admin = replica(client)
    await admin.make("tiny", changes.promote("1"), by="ann")
    away = connect("redis://127.0.0.1:1", timeout_s=0.2)
    routes._records = RouteRecords(away, Disk())
    with pytest.raises(ApiError):
        await routes.look()
    assert chosen(routes) == "1"
    fresh, _ = replica(away)
    with pytest.raises(ApiError) as caught:
        await fresh.start()
    assert reason(caught) is Reason.STORE_UNAVAILABLE
    await client.aclose()
    await away.aclose()


async def test_routes_that_are_gone_from_the_store_are_the_manifests_again(replica, redis):
    routes, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann")
    await redis.flushall()
    await routes.look()
    assert chosen(routes) == "2"


@given(st.floats(0, 100), st.text(min_size=1), st.sampled_from(["tenant", "key"]))
def test_a_canary_takes_about_its_share(percent, version, by):
    canary = Canary(version, "stable", percent, by=by)
    taken = sum(takes(canary, "tiny", tenant, "key") for tenant in TENANTS)
    # Six standard deviations of 2,000 throws, and what is rare comes in whole numbers.
    assert abs(taken - 20 * percent) <= 6 * (20 * percent * (1 - percent / 100)) ** 0.5 + 3


@given(st.text(), st.text(), st.floats(0, 100), st.floats(0, 100), st.sampled_from(["tenant", "key"]))
def test_a_growing_canary_moves_nobody_back(tenant, key, one, other, by):
    less, more = (Canary("2", "stable", percent, by=by) for percent in sorted((one, other)))
    assert takes(less, "tiny", tenant, key) <= takes(more, "tiny", tenant, key)


@given(st.text(), st.text(), st.text(), st.floats(0, 100))
def test_whoever_is_the_same_stays_where_he_is(tenant, key, other, percent):
    by_tenant = Canary("2", "stable", percent)
    assert takes(by_tenant, "tiny", tenant, key) == takes(by_tenant, "tiny", tenant, other)
    by_key = Canary("2", "stable", percent, by="key")
    assert takes(by_key, "tiny", tenant, key) == takes(by_key, "tiny", tenant, key)
    assert takes(by_key, "tiny", tenant, None) == takes(by_tenant, "tiny", tenant, None)


def test_all_and_none_are_exact():
    for tenant in TENANTS:
        assert takes(Canary("2", "stable", 100.0), "tiny", tenant, None)
        assert not takes(Canary("2", "stable", 0.0), "tiny", tenant, None)


def test_keys_of_one_tenant_are_spread():
    canary = Canary("2", "stable", 30.0, by="key")
    taken = sum(takes(canary, "tiny", "acme", f"key-{n}") for n in range(2000))
    assert 400 < taken < 800
