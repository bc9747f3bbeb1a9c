from __future__ import annotations

from contextlib import ExitStack

import pytest
from tests.clock import FakeClock

from camserve_server.engine.share_pace import SharePace


@pytest.fixture
def clock():
    return FakeClock(now=1000.0)


@pytest.fixture
def pace(clock):
    return SharePace(3, monotonic=clock.monotonic)


def call(pace, clock, share, seconds):
    with pace.call(share):
        clock.advance(seconds)


def test_a_slow_share_has_every_worker_but_one_while_others_send_pictures(pace, clock):
    call(pace, clock, "quick", 0.1)
    call(pace, clock, "slow", 2)
    with ExitStack() as calls:
        for _ in range(2):
            assert pace.may_run("slow")
            calls.enter_context(pace.call("slow"))
        assert not pace.may_run("slow")
        assert pace.may_run("quick")
    assert pace.may_run("slow")


def test_slow_shares_count_together(pace, clock):
    call(pace, clock, "quick", 0.1)
    for share in ("a", "b", "c"):
        call(pace, clock, share, 2)
    with pace.call("a"), pace.call("b"):
        assert not pace.may_run("c")


def test_a_call_that_is_at_work_for_long_makes_its_share_slow_before_it_ends(pace, clock):
    call(pace, clock, "quick", 0.1)
    with pace.call("slow"), pace.call("slow"):
        assert pace.may_run("slow")
        clock.advance(1.1)
        assert not pace.may_run("slow")


def test_who_is_alone_has_every_worker(pace, clock):
    call(pace, clock, "slow", 2)
    with pace.call("slow"), pace.call("slow"):
        assert pace.may_run("slow")
    call(pace, clock, "quick", 0.1)
    clock.advance(30)
    call(pace, clock, "slow", 2)
    with pace.call("slow"), pace.call("slow"):
        assert pace.may_run("slow")


def test_a_share_is_slow_no_longer_after_a_while(pace, clock):
    call(pace, clock, "slow", 2)
    clock.advance(10)
    call(pace, clock, "quick", 0.1)
    with pace.call("slow"), pace.call("slow"):
        assert pace.may_run("slow")


def test_one_worker_is_everybodys(clock):
    pace = SharePace(1, monotonic=clock.monotonic)
    call(pace, clock, "quick", 0.1)
    call(pace, clock, "slow", 2)
    assert pace.may_run("slow")
