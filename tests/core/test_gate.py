from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.gate import Gate


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gate(clock):
    return Gate(wait_s=0.5, least=4, most=20, monotonic=clock.monotonic)


@pytest.fixture
def calls():
    with ExitStack() as stack:
        yield stack


def full(gate, calls, tenant="acme", version="v"):
    """Fills the gate and returns how many calls came in."""
    for count in range(1000):
        try:
            gate.check(version, tenant)
        except ApiError:
            with pytest.raises(ApiError) as refusal:
                calls.enter_context(gate.entered(version, tenant))
            assert refusal.value.reason is Reason.SERVICE_OVERLOADED
            return count
        calls.enter_context(gate.entered(version, tenant))
    raise AssertionError("the gate is never full")


def answers(gate, clock, per_s, count=200, under_way=3):
    """Lets calls be answered at a pace while others are under way."""
    with ExitStack() as others:
        for _ in range(under_way):
            others.enter_context(gate.entered("v", "acme"))
        for _ in range(count):
            with gate.entered("v", "acme"):
                clock.advance(1 / per_s)


def test_as_many_come_in_as_are_answered_within_the_wait(gate, clock, calls):
    assert gate.limit("v") == 20
    answers(gate, clock, per_s=30)
    assert gate.limit("v") == 15
    assert full(gate, calls) == 15


def test_of_a_version_that_is_gone_nothing_is_known(gate, clock):
    answers(gate, clock, per_s=30)
    gate.forget("v")
    assert gate.limit("v") == 20
    gate.forget("never seen")


@pytest.mark.parametrize(("per_s", "limit"), [(1, 4), (24, 12), (1000, 20)])
def test_before_there_were_many_calls_what_else_is_known_of_the_pace_counts(clock, calls, per_s, limit):
    gate = Gate(wait_s=0.5, least=4, most=20, monotonic=clock.monotonic, pace=lambda version: per_s)
    assert full(gate, calls) == limit


@pytest.mark.parametrize(("per_s", "limit"), [(24, 12), (1000, 15)])
def test_many_answers_tell_of_what_slows_a_version_down_besides_its_device(clock, per_s, limit):
    gate = Gate(wait_s=0.5, least=4, most=20, monotonic=clock.monotonic, pace=lambda version: per_s)
    answers(gate, clock, per_s=30)
    assert gate.limit("v") == limit


def test_answers_that_come_together_do_not_make_a_version_look_faster_than_its_device(clock):
    gate = Gate(wait_s=0.5, least=4, most=20, monotonic=clock.monotonic, pace=lambda version: 10.0)
    for _ in range(50):
        with ExitStack() as batch:
            for _ in range(5):
                batch.enter_context(gate.entered("v", "acme"))
            clock.advance(0.5)
    assert gate.limit("v") == 5


@pytest.mark.parametrize(("per_s", "limit"), [(1, 4), (1000, 20)])
def test_the_limit_keeps_its_bounds(gate, clock, per_s, limit):
    answers(gate, clock, per_s)
    assert gate.limit("v") == limit


def test_the_limit_follows_the_pace(gate, clock):
    answers(gate, clock, per_s=30)
    answers(gate, clock, per_s=20, count=400)
    assert gate.limit("v") == 10


def test_few_callers_do_not_set_the_pace(gate, clock):
    answers(gate, clock, per_s=30)
    answers(gate, clock, per_s=1, under_way=1)
    assert gate.limit("v") == 15


def test_a_tenant_with_less_than_its_share_comes_in_where_another_fills_everything(gate, clock, calls):
    answers(gate, clock, per_s=40)
    assert full(gate, calls) == 20
    assert full(gate, calls, "other") == 10
    assert full(gate, calls, "third") == 6
    # However many tenants come, there is an end.
    assert sum(full(gate, calls, f"t{n}") for n in range(50)) == 4


def test_versions_do_not_fill_each_other(gate, calls):
    full(gate, calls)
    gate.check("w", "acme")


def test_a_call_is_hopeless_where_all_that_the_tenant_called_lately_is_full(gate, clock, calls):
    assert not gate.hopeless("acme")
    full(gate, calls)
    assert gate.hopeless("acme")
    assert not gate.hopeless("other")
    gate.check("w", "acme")
    assert not gate.hopeless("acme")
    clock.advance(599)
    assert not gate.hopeless("acme")
    # What it called before that says nothing any more.
    full(gate, calls, version="x")
    clock.advance(2)
    assert gate.hopeless("acme")
    clock.advance(600)
    assert not gate.hopeless("acme")


def test_a_place_is_free_when_its_call_ends_however_it_ends(gate):
    for error in (None, ApiError(Reason.IMAGE_REJECTED), KeyboardInterrupt()):
        try:
            with gate.entered("v", "acme"):
                if error:
                    raise error
        except (ApiError, KeyboardInterrupt):
            pass
    with ExitStack() as calls:
        assert full(gate, calls) == 20
