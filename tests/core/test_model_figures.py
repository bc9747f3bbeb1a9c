from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from prometheus_client import REGISTRY, generate_latest
from tests.clock import FakeClock
from tests.core.predictions import WHOLE, prediction, version

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core import model_figures
from camserve_server.core.comparisons import Compared
from camserve_server.core.model_figures import ModelFigures

CAM = np.eye(4, dtype=np.float32)


@pytest.fixture
def clock():
    return FakeClock(100.0)


@pytest.fixture
def figures(clock):
    return ModelFigures(clock)


def calls(taken):
    return {span: {series: counts.get("calls") for series, counts in each.items()} for span, each in taken.items()}


def fail(figures, error, **options):
    with pytest.raises(type(error)), figures.errors(version("2"), "answer", **options):
        raise error


def test_predictions_are_counted_in_spans_of_five_seconds_by_version_and_role(figures, clock):
    figures.count(version("2"), "answer", prediction(1))
    clock.advance(4.9)
    figures.count(version("2"), "shadow", prediction(1))
    clock.advance(0.2)
    figures.count(version("3"), "answer", prediction(2, ms=16.0))
    taken = figures.take()
    assert calls(taken) == {("tiny", 20): {"2 answer": 1, "2 shadow": 1}, ("tiny", 21): {"3 answer": 1}}
    assert taken["tiny", 21]["3 answer"] == {"calls": 1, "class cat": 1, "pass plain1 32": 1}


def test_only_what_has_changed_is_taken_again_and_then_whole(figures, clock):
    figures.count(version("2"), "answer", prediction())
    figures.take()
    assert figures.take() == {}
    figures.count(version("2"), "answer", prediction())
    assert calls(figures.take()) == {("tiny", 20): {"2 answer": 2}}


def test_what_could_not_be_written_is_taken_again_until_it_is_long_over(figures, clock):
    figures.count(version("2"), "answer", prediction())
    for _ in range(2):
        taken = figures.take()
        assert calls(taken) == {("tiny", 20): {"2 answer": 1}}
        figures.give_back(taken)
    clock.advance(70)
    assert figures.take() == {}
    assert figures._spans == {}


@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (ApiError(Reason.INTERNAL), True),
        (ApiError(Reason.CIRCUIT_OPEN), True),
        (ApiError(Reason.TIMEOUT_EXCEEDED), True),
        (ApiError(Reason.SERVICE_OVERLOADED), False),
        (ApiError(Reason.SERVICE_DRAINING), False),
        (ApiError(Reason.PARAM_LAYER_NOT_FOUND), False),
        (asyncio.CancelledError(), False),
    ],
)
def test_errors_are_counted_where_the_version_is_to_blame(figures, error, counted):
    fail(figures, error)
    assert figures.take() == ({("tiny", 20): {"2 answer": {"calls": 1, "errors": 1}}} if counted else {})


def test_a_caller_that_leaves_is_no_error_and_one_whose_time_is_over_is(figures):
    fail(figures, asyncio.CancelledError(), deadline_monotonic=time.monotonic() + 5)
    assert figures.take() == {}
    fail(figures, asyncio.CancelledError(), deadline_monotonic=time.monotonic())
    assert calls(figures.take()) == {("tiny", 20): {"2 answer": 1}}


def test_classes_beyond_the_first_are_counted_together(figures, monkeypatch):
    monkeypatch.setattr(model_figures, "_MOST_CLASSES", 2)
    for top in (0, 1, 2, 0, 2):
        figures.count(version("2"), "answer", prediction(top))
    counts = figures.take()["tiny", 20]["2 answer"]
    classes = {name: count for name, count in counts.items() if name.startswith("class ")}
    assert classes == {"class ant": 2, "class bee": 1, "class ": 2}


def test_metrics_forget_a_version_and_no_other(figures):
    for name in ("forgotten", "kept"):
        compared = Compared(version("2"), prediction(cam=CAM), WHOLE, version(name), prediction(cam=CAM), WHOLE, 9, 9)
        figures.compare(compared)
        figures.count(version(name), "shadow", prediction())
        with pytest.raises(ApiError), figures.errors(version(name), "answer"):
            raise ApiError(Reason.INTERNAL)
    figures.forget(("tiny", "forgotten"))
    text = generate_latest(REGISTRY).decode()
    assert 'version="forgotten"' not in text
    assert 'camserve_model_cam_iou_count{model="tiny",version="kept"} 1.0' in text
    assert 'camserve_model_compared_total{model="tiny",top_class="same",version="kept"} 1.0' in text
