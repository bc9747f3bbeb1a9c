from __future__ import annotations

import pytest
from tests.clock import FakeClock

from camserve_server.core.pace import Pace


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def pace(clock):
    return Pace(clock, many=4)


def work(pace, clock, items, seconds):
    """Works on so many items at once for that long."""
    for _ in range(items):
        pace.begin()
    clock.advance(seconds)
    for _ in range(items):
        pace.end(finished=True)


def test_nothing_is_known_before_an_item_has_ended(pace, clock):
    assert pace.per_s == 0
    pace.begin()
    clock.advance(1)
    assert pace.per_s == 0
    pace.end(finished=False)
    assert pace.per_s == 0


def test_single_items_say_how_fast_a_worker_is_until_many_do(pace, clock):
    work(pace, clock, 1, 0.5)
    assert pace.per_s == pytest.approx(2)
    work(pace, clock, 8, 0.5)
    assert pace.per_s == pytest.approx(16)
    for _ in range(20):
        work(pace, clock, 1, 0.5)
    assert pace.per_s == pytest.approx(16)


def test_time_without_work_does_not_count(pace, clock):
    work(pace, clock, 8, 1)
    clock.advance(1000)
    work(pace, clock, 8, 1)
    assert pace.per_s == pytest.approx(8)


def test_it_follows_a_change_within_some_windows(pace, clock):
    for _ in range(100):
        work(pace, clock, 8, 1)
    for _ in range(100):
        work(pace, clock, 8, 4)
    assert pace.per_s == pytest.approx(2, rel=0.05)


def test_what_did_not_finish_took_time_all_the_same(pace, clock):
    for _ in range(4):
        pace.begin()
    clock.advance(1)
    for finished in (True, True, False, False):
        pace.end(finished=finished)
    assert pace.per_s == pytest.approx(2)
