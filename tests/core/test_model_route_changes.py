from __future__ import annotations

import asyncio

import pytest
from tests.core.routing import TENANTS, chosen, reason

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core import model_route_changes as changes
from camserve_server.stores.model_routes import Canary


async def test_a_promotion_ends_the_canary_of_its_alias(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.canary(Canary("3", "stable", 50.0)), by="ann")
    await admin.make("tiny", changes.promote("1", "next"), by="ann")
    assert routes.of("tiny").routes.canary
    await admin.make("tiny", changes.promote("3"), by="ann")
    assert routes.of("tiny").routes.canary is None


async def test_a_rollback_leads_the_alias_back_and_a_second_one_undoes_it(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann")
    await admin.make("tiny", changes.promote("1", "next"), by="ann")
    await admin.make("tiny", changes.pin("acme", "3"), by="ann")
    before, after = await admin.make("tiny", changes.roll_back(), by="ann")
    assert after.revision == before.revision + 1
    assert after.routes.aliases == {"stable": "2", "next": "1"}
    # A pinned tenant does not move with it.
    assert chosen(routes, tenant="acme") == "3"
    await admin.make("tiny", changes.roll_back(), by="ann")
    assert routes.of("tiny").routes.aliases == {"stable": "1", "next": "1"}
    await admin.make("tiny", changes.roll_back("next"), by="ann")
    assert routes.of("tiny").routes.aliases == {"stable": "1", "next": "3"}


async def test_a_rollback_ends_a_canary_however_often_it_grew_and_only_then_takes_the_promotion_before(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann")
    for percent in (1.0, 10.0, 100.0):
        await admin.make("tiny", changes.canary(Canary("3", "stable", percent)), by="ann")
    assert chosen(routes) == "3"
    await admin.make("tiny", changes.roll_back(), by="ann")
    assert chosen(routes) == "1"
    await admin.make("tiny", changes.roll_back(), by="ann")
    assert chosen(routes) == "2"


async def test_a_rollback_after_a_canary_was_promoted_leaves_nobody_on_it(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.canary(Canary("3", "stable", 50.0)), by="ann")
    await admin.make("tiny", changes.promote("3"), by="ann")
    await admin.make("tiny", changes.roll_back(), by="ann")
    assert {chosen(routes, tenant=tenant) for tenant in TENANTS[:50]} == {"2"}


async def test_an_alias_that_is_removed_is_the_manifests_again_or_none(replica):
    routes, admin = replica()
    await admin.make("tiny", changes.promote("1", "new"), by="ann")
    await admin.make("tiny", changes.promote("1", "next"), by="ann")
    await admin.make("tiny", changes.canary(Canary("3", "new", 1.0)), by="ann")
    for alias in ("new", "next"):
        await admin.make("tiny", changes.remove_alias(alias), by="ann")
    assert routes.of("tiny").routes == changes.Routes(aliases={"stable": "2"})
    assert chosen(routes, "next") == "3"
    with pytest.raises(ApiError) as caught:
        chosen(routes, "new")
    assert reason(caught) is Reason.MODEL_VERSION_NOT_FOUND


async def test_an_alias_that_was_not_changed_cannot_be_rolled_back(replica):
    _, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann")
    await admin.make("tiny", changes.promote("1", "new"), by="ann")
    for alias in ("next", "new", "never"):
        with pytest.raises(ApiError) as caught:
            await admin.make("tiny", changes.roll_back(alias), by="ann")
        assert reason(caught) is Reason.RESOURCE_VERSION_CONFLICT


async def test_a_change_that_names_another_revision_is_refused(replica):
    _, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann", expected=0)
    with pytest.raises(ApiError) as caught:
        await admin.make("tiny", changes.promote("3"), by="bob", expected=0)
    assert reason(caught) is Reason.RESOURCE_VERSION_CONFLICT
    assert caught.value.details == {"expected_revision": 0, "revision": 1}


async def test_changes_at_once_are_all_made_one_after_the_other(replica):
    _, admin = replica()
    await asyncio.gather(*(admin.make("tiny", changes.pin(f"t{n}", "1"), by="ann") for n in range(4)))
    record, made = await admin.of("tiny")
    assert set(record.routes.pins) == {"t0", "t1", "t2", "t3"}
    assert [change.revision for change in made] == [4, 3, 2, 1]


async def test_what_changes_nothing_is_no_change(replica):
    _, admin = replica()
    before, after = await admin.make("tiny", changes.unpin("nobody"), by="ann")
    assert before == after
    assert (await admin.of("tiny"))[1] == []


async def test_the_last_changes_tell_who_made_what_and_why(replica):
    _, admin = replica()
    await admin.make("tiny", changes.promote("1"), by="ann", why="slower than thought")
    await admin.make("tiny", changes.roll_back(), by="bob")
    _, made = await admin.of("tiny")
    assert [(change.by, change.what, change.why) for change in made] == [
        ("bob", "roll back stable", ""),
        ("ann", "promote 1 to stable", "slower than thought"),
    ]
    assert made[0].at_ms == 1_800_000_000_000


@pytest.mark.parametrize(
    "edit",
    [
        changes.promote("broken"),
        changes.canary(Canary("broken", "stable", 1.0)),
        changes.pin("acme", "broken"),
        changes.shadow(changes.Shadow("broken", 1.0)),
    ],
    ids=lambda edit: edit.what,
)
async def test_nobody_is_led_to_a_version_that_is_not_ready(replica, edit):
    routes, admin = replica()
    with pytest.raises(ApiError) as caught:
        await admin.make("tiny", edit, by="ann")
    assert reason(caught) is Reason.RESOURCE_VERSION_CONFLICT
    assert caught.value.details["version"] == "broken"
    assert caught.value.details["why"]
    assert routes.of("tiny").revision == 0


@pytest.fixture
def golden(engine, monkeypatch):
    """Has every version say that its golden inputs passed, and come out as the test says when they are run anew."""
    listed = [changes.replace(each, golden="passed") for each in engine.models()]
    monkeypatch.setattr(engine, "models", lambda: listed)
    ran = []

    def come_out(golden, why=None):
        async def rerun(model, version):
            ran.append(version)
            if isinstance(golden, BaseException):
                raise golden
            return changes.replace(engine.resolve(model, version), golden=golden, golden_reason=why)

        monkeypatch.setattr(engine, "rerun_golden", rerun)
        return ran

    return come_out


@pytest.mark.parametrize(
    "edit",
    [changes.promote("1"), changes.canary(Canary("1", "stable", 1.0)), changes.pin("acme", "1")],
    ids=lambda edit: edit.what,
)
async def test_nobody_is_led_to_a_version_whose_golden_inputs_fail_when_they_are_run_anew(replica, golden, edit):
    routes, admin = replica()
    ran = golden("failed", "case 2: another top class")
    await admin.make("tiny", changes.shadow(changes.Shadow("1", 1.0)), by="ann")
    with pytest.raises(ApiError) as caught:
        await admin.make("tiny", edit, by="ann")
    assert reason(caught) is Reason.RESOURCE_VERSION_CONFLICT
    assert caught.value.details == {"version": "1", "why": "its golden inputs failed: case 2: another top class"}
    assert (ran, routes.of("tiny").revision) == (["1"], 1)
    golden("passed")
    await admin.make("tiny", edit, by="ann")
    assert routes.of("tiny").revision == 2


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (ApiError(Reason.CIRCUIT_OPEN), ApiError(Reason.CIRCUIT_OPEN).message),
        (TimeoutError(), "its golden inputs take longer than 30 s"),
    ],
)
async def test_a_version_whose_golden_inputs_cannot_be_run_is_not_promoted(replica, golden, fault, why):
    _, admin = replica()
    golden(fault)
    with pytest.raises(ApiError) as caught:
        await admin.make("tiny", changes.promote("1"), by="ann")
    assert caught.value.details == {"version": "1", "why": why}


async def test_a_rollback_does_not_wait_for_golden_inputs(replica, golden):
    _, admin = replica()
    ran = golden("passed")
    await admin.make("tiny", changes.promote("1"), by="ann")
    golden("failed")
    _, after = await admin.make("tiny", changes.roll_back(), by="ann")
    assert (ran, after.routes.aliases["stable"]) == (["1"], "2")


@pytest.mark.parametrize(
    ("model", "edit", "expected"),
    [
        ("nobody", changes.promote("1"), Reason.MODEL_NOT_FOUND),
        ("tiny", changes.promote("9"), Reason.MODEL_VERSION_NOT_FOUND),
        ("tiny", changes.promote("1", "2"), Reason.PARAM_INVALID),
        ("tiny", changes.canary(Canary("1", "none", 5.0)), Reason.PARAM_INVALID),
        ("tiny", changes.remove_alias("stable"), Reason.PARAM_INVALID),
        ("tiny", changes.remove_alias("none"), Reason.PARAM_INVALID),
        ("tiny", changes.canary(Canary("1", "stable", 0.0)), Reason.PARAM_INVALID),
        ("tiny", changes.deprecate("9", changes.Deprecation(1)), Reason.MODEL_VERSION_NOT_FOUND),
        ("tiny", changes.deprecate("1", changes.Deprecation(1, successor="9")), Reason.MODEL_VERSION_NOT_FOUND),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused(replica, model, edit, expected):
    _, admin = replica()
    with pytest.raises(ApiError) as caught:
        await admin.make(model, edit, by="ann")
    assert reason(caught) is expected
