"""A temperature is found where it is known, and figures are those of the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from camserve_server.engine.calibration import (
    CalibrationError,
    cross_fitted,
    fit_temperature,
    reliability,
    softmax,
)


def drawn(temperature: float, pictures: int = 5000, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores, and classes drawn from the probabilities that they have at a temperature."""
    rng = np.random.default_rng(3)
    scores = 3 * temperature * rng.normal(size=(pictures, classes))
    sums = softmax(scores, temperature).cumsum(axis=1)
    return scores, (sums < rng.random((pictures, 1))).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0, 2.5, 300.0])
def test_the_temperature_that_classes_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)


def test_no_other_temperature_has_a_smaller_nll() -> None:
    scores, classes = drawn(2.0, pictures=400)
    best = fit_temperature(scores, classes)
    least = reliability(softmax(scores, best), classes).nll
    for off in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):
        assert reliability(softmax(scores, best * off), classes).nll > least


def test_a_fit_mends_the_probabilities_and_no_top_class() -> None:
    scores, classes = drawn(3.0)
    before, after = (reliability(softmax(scores, each), classes) for each in (1.0, fit_temperature(scores, classes)))
    assert after.accuracy == before.accuracy
    assert after.nll < before.nll
    assert before.ece > 0.15
    assert after.ece < 0.02


def test_figures_of_a_few_pictures_are_those_of_the_definition() -> None:
    probs = np.array([[0.9, 0.1], [0.94, 0.06], [0.62, 0.38], [0.45, 0.55]])
    figures = reliability(probs, np.array([0, 1, 0, 0]))
    assert [(each.pictures, each.accuracy) for each in figures.bins] == [(1, 0.0), (1, 1.0), (1, 1.0), (1, 0.0)]
    assert figures.ece == pytest.approx((0.1 + 0.94 + 0.38 + 0.55) / 4)
    assert figures.nll == pytest.approx(-np.log([0.9, 0.06, 0.62, 0.45]).mean())
    assert figures.accuracy == 0.5


def test_bins_hold_their_upper_bound_and_gaps_within_one_cancel() -> None:
    probs = np.array([[1.0, 0.0], [0.95, 0.05], [10 / 15, 5 / 15], [0.5, 0.5]])
    figures = reliability(probs, np.array([0, 1, 0, 0]))
    assert [(round(each.low * 15), each.pictures) for each in figures.bins] == [(7, 1), (9, 1), (14, 2)]
    assert figures.bins[-1].confidence == pytest.approx(0.975)
    assert figures.ece == pytest.approx((0.5 + 5 / 15 + 2 * abs(0.975 - 0.5)) / 4)


def test_a_probability_of_zero_has_a_finite_nll() -> None:
    assert np.isfinite(reliability(np.array([[1.0, 0.0]]), np.array([1])).nll)


def test_no_picture_is_measured_with_a_temperature_that_knows_its_class() -> None:
    scores, classes = drawn(2.0, pictures=300)
    wrong = np.flatnonzero(scores.argmax(axis=1) != classes)
    changed = classes.copy()
    # Another wrong class: what it is in, right or wrong, decides with which pictures it is measured.
    changed[wrong[0]] = next(each for each in range(7) if each not in (classes[wrong[0]], scores[wrong[0]].argmax()))
    once, again = cross_fitted(scores, classes), cross_fitted(scores, changed)
    assert (once[wrong[0]] == again[wrong[0]]).all()
    assert (once != again).any()


@pytest.mark.parametrize(
    ("pictures", "mistakes", "why"),
    [
        (99, 30, "99 pictures are too few: 100 are needed"),
        (200, 4, "the model is wrong about 4 of 200 pictures, where 5 are needed"),
        (200, 190, "the model's scores say nothing about these classes"),
    ],
)
def test_pictures_that_tell_too_little_are_refused(pictures: int, mistakes: int, why: str) -> None:
    scores = np.zeros((pictures, 3))
    scores[:, 0] = 1.0
    classes = np.zeros(pictures, np.int64)
    classes[:mistakes] = 1
    with pytest.raises(CalibrationError, match=why):
        cross_fitted(scores, classes)


def test_a_model_that_is_always_right_has_no_temperature() -> None:
    with pytest.raises(CalibrationError, match="wrong about 0 of 3 pictures"):
        fit_temperature(np.eye(3), np.arange(3))


def test_scores_that_are_not_finite_are_refused() -> None:
    scores, classes = drawn(1.0, pictures=200)
    scores[0, 0] = np.nan
    with pytest.raises(CalibrationError, match="not finite"):
        fit_temperature(scores, classes)
