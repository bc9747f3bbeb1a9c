from __future__ import annotations

import numpy as np
import pytest

from camserve_server.core.model_guard import judge, wilson
from camserve_server.core.pass_times import _STEPS
from camserve_server.stores.model_routes import Guard

GUARD = Guard()


def judged(figures, guard=GUARD, role="answer"):
    return {check.limit: check for check in judge(guard, figures, "3", "2", role)}


def state(figures, limit, guard=GUARD):
    return judged(figures, guard)[limit].state


def errors(own, of, others=0, of_others=1000):
    return {"3 answer": {"calls": of, "errors": own}, "2 answer": {"calls": of_others, "errors": others}}


def passes(times_ms, stratum="map1"):
    counts = {}
    for ms in times_ms:
        name = f"pass {stratum} {int(np.ceil(_STEPS * np.log2(ms)))}"
        counts[name] = counts.get(name, 0) + 1
    return counts


def pair(**counts):
    return {"3 against 2": {name.replace("_", " "): count for name, count in counts.items()}}


def test_the_bounds_are_those_that_wilson_gives():
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(10, 100)
    for bound in (low, high):
        # What is seen lies three standard errors of the bound away from it.
        assert abs(0.1 - bound) == pytest.approx(3 * np.sqrt(bound * (1 - bound) / 100))
    assert wilson(0, 100)[0] == 0.0
    assert wilson(100, 100)[1] == pytest.approx(1.0)


def test_a_version_without_figures_waits():
    assert {check.state for check in judged({}).values()} == {"waiting"}
    assert {check.value for check in judged({}).values()} == {None}


def test_few_calls_are_not_judged_however_bad():
    assert state(errors(49, 49), "error_rate") == "waiting"
    assert state(errors(50, 50), "error_rate") == "passed"


def test_errors_count_above_those_of_the_other_version_only():
    assert state(errors(30, 100), "error_rate") == "passed"
    assert state(errors(30, 100, others=280), "error_rate") == "kept"
    # All that fail where the other one has no calls at all.
    assert state(errors(30, 100, of_others=0), "error_rate") == "passed"


def test_errors_of_a_shadow_are_the_versions_too():
    figures = errors(0, 40) | {"3 shadow": {"calls": 40, "errors": 40}}
    found = judged(figures)["error_rate"]
    assert (found.calls, found.value, found.state) == (80, 0.5, "passed")


def test_a_few_errors_are_chance():
    assert state(errors(3, 60), "error_rate") == "kept"
    assert state(errors(50, 1000), "error_rate") == "passed"


def test_a_slow_version_is_one_of_which_more_than_a_twentieth_takes_too_long():
    usual = passes(np.random.default_rng(0).lognormal(2, 0.3, 400))
    same = passes(np.random.default_rng(1).lognormal(2, 0.3, 100))
    tail = passes([*np.random.default_rng(1).lognormal(2, 0.3, 80), *[200.0] * 20])
    slow = passes(3 * np.random.default_rng(1).lognormal(2, 0.3, 100))
    for own, expected in ((same, "kept"), (tail, "passed"), (slow, "passed")):
        assert state({"3 answer": own, "2 answer": usual}, "latency_ratio") == expected
    assert judged({"3 answer": slow, "2 answer": usual})["latency_ratio"].value == pytest.approx(3, rel=0.4)


def test_more_pictures_in_a_batch_are_no_slowness():
    usual = passes([10.0] * 200, "map1") | passes([80.0] * 60, "map4")
    busy = passes([80.0] * 100, "map4")
    assert state({"3 answer": busy, "2 answer": usual}, "latency_ratio") == "kept"
    alone = passes([80.0] * 100, "map3")
    assert state({"3 answer": alone, "2 answer": usual}, "latency_ratio") == "waiting"


def test_a_shadow_is_judged_by_the_times_of_its_own_role():
    figures = {"3 shadow": passes([50.0] * 60), "2 answer": passes([10.0] * 60)}
    assert judged(figures, role="shadow")["latency_ratio"].state == "passed"
    assert judged(figures, role="answer")["latency_ratio"].state == "waiting"


@pytest.mark.parametrize(
    ("limit", "counts", "expected"),
    [
        ("agreement", {"pictures": 100, "agreeing": 95}, "kept"),
        ("agreement", {"pictures": 60, "agreeing": 45}, "kept"),
        ("agreement", {"pictures": 100, "agreeing": 50}, "passed"),
        ("class_shift", {"pictures": 100, "agreeing": 60, "class_a": 20, "class_b": -20}, "kept"),
        ("class_shift", {"pictures": 100, "agreeing": 60, "class_a": 40, "class_b": -40}, "passed"),
        ("heatmap_iou", {"maps": 60, "iou": 36.0, "iou_squares": 24.0}, "kept"),
        ("heatmap_iou", {"maps": 60, "iou": 6.0, "iou_squares": 1.0}, "passed"),
        # A mean below the limit, of values so different that it may be chance.
        ("heatmap_iou", {"maps": 50, "iou": 14.0, "iou_squares": 14.0}, "kept"),
        ("centre_shift", {"maps": 60, "shift": 3.0, "shift_squares": 0.3}, "kept"),
        ("centre_shift", {"maps": 60, "shift": 24.0, "shift_squares": 10.0}, "passed"),
        ("centre_shift", {"maps": 60, "blank": 20, "shift": 16.0, "shift_squares": 7.0}, "waiting"),
    ],
)
def test_pictures_that_both_have_seen_are_judged(limit, counts, expected):
    assert state(pair(**counts), limit) == expected


def test_limits_at_their_ends_never_apply():
    off = Guard(300, 10, 1.0, 1000.0, 0.0, 1.0, 0.0, 1.0)
    worst = errors(100, 100) | pair(pictures=100, maps=100, shift=100.0, shift_squares=100.0, class_a=100, class_b=-100)
    assert {check.state for check in judged(worst, off).values()} <= {"kept", "waiting"}


def test_the_reason_tells_the_figures():
    figures = errors(90, 100) | pair(pictures=64, agreeing=64, maps=64, iou=7.0, iou_squares=1.0)
    found = judged(figures)
    assert found["error_rate"].why == "error rate 0.9 above 0.02 in 100 calls, version 2 has 0"
    assert found["heatmap_iou"].why == "heatmap IoU 0.109 below 0.3 in 64 shadowed calls"


def test_a_sound_version_with_few_calls_is_hardly_ever_found_wanting():
    generator = np.random.default_rng(0)
    found = []
    for _ in range(400):
        figures = errors(generator.binomial(50, 0.02), 50, generator.binomial(200, 0.02), 200)
        figures["3 answer"] |= passes(generator.lognormal(2, 0.5, 50))
        figures["2 answer"] |= passes(generator.lognormal(2, 0.5, 200))
        agreeing = generator.binomial(50, 0.9)
        moves = generator.multinomial(50 - agreeing, [0.25] * 4)
        ious = generator.beta(4, 4, 50)
        figures |= {
            "3 against 2": {
                "pictures": 50,
                "agreeing": agreeing,
                "class a": moves[0] - moves[1],
                "class b": moves[1] - moves[0],
                "class c": moves[2] - moves[3],
                "class d": moves[3] - moves[2],
                "maps": 50,
                "iou": ious.sum(),
                "iou squares": (ious**2).sum(),
            }
        }
        found += [check for check in judged(figures).values() if check.state == "passed"]
    assert len(found) <= 2
