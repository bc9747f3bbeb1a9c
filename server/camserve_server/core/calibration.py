"""A temperature for a model version, fitted to pictures of known classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from camserve_server.base.errors import ApiError
from camserve_server.engine.calibration import (
    BINS,
    FOLDS,
    Classes,
    Reliability,
    Rows,
    cross_fitted,
    fit_temperature,
    reliability,
    softmax,
)
from camserve_server.engine.labelled_pictures import LabelledPicture
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.scoring import Scorer


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores (N, C) of pictures of known classes (N,).

    `refused` are the pictures that the service would not answer for, and why; they count for nothing.
    """

    scores: Rows
    classes: Classes
    refused: list[tuple[Path, str]]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A temperature, and how far probabilities come true with the one in force and with this one."""

    temperature_before: float
    temperature: float
    before: Reliability
    after: Reliability
    pictures_of_class: dict[str, int]

    @property
    def helps(self) -> bool:
        """Whether the true classes are more probable than before."""
        return self.after.nll < self.before.nll

    def figures(self) -> dict[str, Any]:
        """Returns what is kept beside the calibration, as JSON has it."""
        return {
            "method": "temperature scaling",
            "pictures": self.before.pictures,
            "pictures_of_class": self.pictures_of_class,
            "measured": f"each picture with a temperature fitted without it, {FOLDS} folds",
            "accuracy": self.before.accuracy,
            "temperature": {"before": self.temperature_before, "after": self.temperature},
            "nll": {"before": self.before.nll, "after": self.after.nll},
            "ece": {"before": self.before.ece, "after": self.after.ece, "bins": BINS},
        }


async def score(scorer: Scorer, pictures: Sequence[LabelledPicture], note: Callable[[int], None]) -> Scored:
    """Returns the pictures' scores; `note` is told how many pictures each batch had."""
    scored = await scorer.score([picture.path for picture in pictures], note)
    pairs = list(zip(pictures, scored, strict=True))
    known = [(row, picture.index) for picture, row in pairs if not isinstance(row, ApiError)]
    return Scored(
        scores=np.array([row for row, _ in known]).reshape(len(known), len(scorer.model.labels)),
        classes=np.array([index for _, index in known], np.int64),
        refused=[(picture.path, row.message) for picture, row in pairs if isinstance(row, ApiError)],
    )


def fit(model: ModelVersion, scored: Scored) -> Fitted:
    """Returns the temperature that fits the pictures best; raises CalibrationError where there is none."""
    after = reliability(cross_fitted(scored.scores, scored.classes), scored.classes)
    counts = Counter(scored.classes.tolist())
    return Fitted(
        temperature_before=model.temperature,
        temperature=float(f"{fit_temperature(scored.scores, scored.classes):.6g}"),
        before=reliability(softmax(scored.scores, model.temperature), scored.classes),
        after=after,
        pictures_of_class={label.id: counts[index] for index, label in enumerate(model.labels)},
    )
