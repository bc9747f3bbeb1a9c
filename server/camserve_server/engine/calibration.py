"""Temperature scaling: the one number by which a classifier's scores are divided so that its probabilities come true.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from camserve_server.base.errors import OperatorError

BINS = 15
FOLDS = 5
# Fewer would leave six or so in each bin of the calibration error.
FEWEST_PICTURES = 100

Rows = NDArray[np.float64]
Classes = NDArray[np.int64]


class CalibrationError(OperatorError):
    """Why no temperature can be fitted to these pictures."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The pictures whose top class has a probability in (low, high]: how many, its mean, and which part is right."""

    low: float
    high: float
    pictures: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """How far probabilities come true.

    `nll` is the mean negative log-likelihood of the true class, in nats. `ece` is the expected calibration error as Guo
    et al. define it (section 2, after Naeini et al. 2015): the gap between confidence and accuracy in each of 15 bins
    of equal width, weighted by its pictures. `bins` are those that hold any.
    """

    pictures: int
    accuracy: float
    nll: float
    ece: float
    bins: tuple[Bin, ...]


def softmax(scores: Rows, temperature: float) -> Rows:
    """Returns the probabilities (N, C) of scores (N, C)."""
    return np.exp(_log_softmax(scores, temperature))


def fit_temperature(scores: Rows, classes: Classes) -> float:
    """Returns the temperature of the least negative log-likelihood of the true `classes` (N,) of `scores` (N, C).

    Raises CalibrationError where there is none: it would be 0 for a model that is always right, and without end for one
    that knows nothing.
    """
    _check(scores, classes, fewest_mistakes=1)
    rows, truth = torch.from_numpy(scores), torch.from_numpy(classes)
    # Any positive number has a logarithm, so that the search needs no bounds.
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [log_temperature], max_iter=100, tolerance_grad=1e-10, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> float:
        search.zero_grad()
        nll = torch.nn.functional.cross_entropy(rows / log_temperature.exp(), truth)
        nll.backward()  # type: ignore[no-untyped-call]
        return float(nll.detach())

    search.step(loss)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp())


def cross_fitted(scores: Rows, classes: Classes) -> Rows:
    """Returns the probabilities (N, C), each picture's with a temperature that was fitted without it.

    So they tell what to expect of pictures that the temperature never saw. Raises CalibrationError where there are
    too few pictures or mistakes, and as `fit_temperature` does.
    """
    if len(classes) < FEWEST_PICTURES:
        raise CalibrationError(
            f"{len(classes)} pictures are too few: {FEWEST_PICTURES} are needed, and 1,000 are better"
        )
    _check(scores, classes, fewest_mistakes=FOLDS)
    # Mistakes weigh most, so that every fold has its share of them.
    order = np.argsort(scores.argmax(axis=1) == classes, kind="stable")
    fold = np.empty(len(classes), np.int64)
    fold[order] = np.arange(len(classes)) % FOLDS
    probs = np.empty_like(scores)
    for number in range(FOLDS):
        held_out = fold == number
        probs[held_out] = softmax(scores[held_out], fit_temperature(scores[~held_out], classes[~held_out]))
    return probs


def reliability(probs: Rows, classes: Classes) -> Reliability:
    """Returns how far probabilities (N, C) of pictures of known classes (N,) come true."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == classes
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    bins = tuple(
        Bin(number / BINS, (number + 1) / BINS, len(here), float(confidence[here].mean()), float(right[here].mean()))
        for number in range(BINS)
        if len(here := np.flatnonzero(place == number))
    )
    truth = probs[np.arange(len(classes)), classes]
    return Reliability(
        pictures=len(classes),
        accuracy=float(right.mean()),
        nll=float(-np.log(truth.clip(min=np.finfo(np.float64).tiny)).mean()),
        ece=sum(each.pictures * abs(each.confidence - each.accuracy) for each in bins) / len(classes),
        bins=bins,
    )


def _check(scores: Rows, classes: Classes, *, fewest_mistakes: int) -> None:
    if not np.isfinite(scores).all():
        raise CalibrationError("the model gives scores that are not finite")
    mistakes = int((scores.argmax(axis=1) != classes).sum())
    if mistakes < fewest_mistakes:
        raise CalibrationError(
            f"the model is wrong about {mistakes} of {len(classes)} pictures, where {fewest_mistakes} are needed: "
            "add more pictures, or harder ones"
        )
    # The slope of the likelihood where every class is as probable: if it does not rise, the best is to know nothing.
    truth = scores[np.arange(len(classes)), classes]
    if (truth - scores.mean(axis=1)).mean() <= 0:
        raise CalibrationError("the model's scores say nothing about these classes: are the pictures labelled rightly?")


def _log_softmax(scores: Rows, temperature: float) -> Rows:
    scaled = scores / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))
