"""What two versions of a model made of the same picture, as counts that can be added up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from camserve_server.base.telemetry import CAM_IOU, CAM_SHIFT, CAMS_BLANK, MODEL_COMPARED
from camserve_server.engine.cam_agreement import CamAgreement, SeenMap, cam_agreement
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import Prediction

View = tuple[float, float, float, float]

_CLASS = "class "


@dataclass(frozen=True, slots=True)
class Compared:
    """One picture of `width` x `height` by two versions; `view` and `shown_view` are what each saw of it.

    Maps, if one was asked for, are of the same class where both have it.
    """

    answering: ModelVersion
    answer: Prediction
    view: View
    shadow: ModelVersion
    shown: Prediction
    shown_view: View
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of `count` values and its standard error; `value` is None of none."""

    count: int
    value: float | None
    error: float

    @classmethod
    def of(cls, count: float, total: float, squares: float) -> Mean:
        """Returns the mean of so many values with this sum and sum of squares."""
        if not count:
            return cls(0, None, 0.0)
        mean = total / count
        variance = max(0.0, squares - count * mean**2) / max(1.0, count - 1)
        return cls(round(count), mean, math.sqrt(variance / count))


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two versions compare on `pictures` that both have seen.

    `agreeing` counts those of the same top class. `class_shift` is half the sum of the differences between the shares
    of each class among the top ones, 0 to 1. `iou` counts the `blank` heatmaps of the second version as 0, `shift`
    leaves them out.
    """

    pictures: int
    agreeing: int
    class_shift: float
    iou: Mean
    shift: Mean
    blank: int

    @classmethod
    def of(cls, counts: Mapping[str, float]) -> Agreement:
        """Returns what counts of `counted` amount to."""

        def count(name: str) -> float:
            return counts.get(name, 0)

        moved = sum(abs(net) for name, net in counts.items() if name.startswith(_CLASS))
        return cls(
            pictures=round(count("pictures")),
            agreeing=round(count("agreeing")),
            class_shift=moved / 2 / max(1, count("pictures")),
            iou=Mean.of(count("maps"), count("iou"), count("iou squares")),
            shift=Mean.of(count("maps") - count("blank"), count("shift"), count("shift squares")),
            blank=round(count("blank")),
        )


def series(version: str, against: str) -> str:
    """Returns the name of the counts of one version compared with another."""
    return f"{version} against {against}"


def counted(compared: Compared) -> dict[str, float]:
    """Returns what one picture adds to the counts of its two versions, and adds it to the metrics.

    Takes half a millisecond where there are maps.
    """
    labels = compared.shadow.key
    counts: dict[str, float] = {"pictures": 1}
    first = compared.answering.labels[int(compared.answer.probs.argmax())].id
    second = compared.shadow.labels[int(compared.shown.probs.argmax())].id
    MODEL_COMPARED.labels(*labels, "same" if first == second else "other").inc()
    if first == second:
        counts["agreeing"] = 1
    else:
        # What one class gains another loses; classes on which both agree move nothing.
        counts |= {_CLASS + first: -1, _CLASS + second: 1}
    found = _maps(compared)
    if found is None:
        return counts
    counts |= {"maps": 1, "iou": found.iou, "iou squares": found.iou**2}
    CAM_IOU.labels(*labels).observe(found.iou)
    if found.shift is None:
        CAMS_BLANK.labels(*labels).inc()
        return counts | {"blank": 1}
    CAM_SHIFT.labels(*labels).observe(found.shift)
    return counts | {"shift": found.shift, "shift squares": found.shift**2}


def _maps(compared: Compared) -> CamAgreement | None:
    answer, shown = compared.answer, compared.shown
    if answer.cam is None or shown.cam is None or answer.target is None or shown.target is None:
        return None
    if compared.answering.labels[answer.target].id != compared.shadow.labels[shown.target].id:
        return None
    one, other = SeenMap(answer.cam, compared.view), SeenMap(shown.cam, compared.shown_view)
    return cam_agreement(one, other, compared.width, compared.height)
