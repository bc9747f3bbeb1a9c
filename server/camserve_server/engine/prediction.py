"""What becomes of a picture: its prediction, or the error that its caller gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batcher import Entry
from camserve_server.engine.inference import Outcome


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture's answer.

    `probs` is (C,) float32, the calibrated softmax; `cam` (h, w) float32 >= 0, the raw map of the
    model's input, with the `layer`, `method` and `target` (class index) it was made for; all four
    are None where no heatmap was asked for. `batch_size` counts the pictures that ran together;
    the times are theirs, and `queue_ms` this one's wait.
    """

    probs: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    layer: str | None
    method: str | None
    target: int | None
    queue_ms: float
    inference_ms: float
    cam_ms: float
    batch_size: int


class ModelFailedError(ApiError):
    """INTERNAL, because the model fails on every picture: the one that was sent is not to blame."""

    def __init__(self) -> None:
        super().__init__(Reason.INTERNAL)


Result = Prediction | ApiError


def result_of(entry: Entry, outcome: Outcome | None, started: float, batch_size: int) -> Result:
    """Returns what the entry's caller gets for the outcome of a batch that `started` then."""
    if outcome is None:
        return ApiError(Reason.INTERNAL)
    if outcome.disconnected:
        return ApiError(Reason.PARAM_LAYER_NOT_FOUND, "The layer does not lead to the model's scores.")
    return Prediction(
        probs=outcome.probs.numpy(),
        cam=None if outcome.cam is None else outcome.cam.numpy(),
        layer=None if entry.explain is None else entry.explain.layer,
        method=None if entry.explain is None else entry.explain.method,
        target=outcome.target,
        queue_ms=(started - entry.enqueued_monotonic) * 1000,
        inference_ms=outcome.inference_ms,
        cam_ms=outcome.cam_ms,
        batch_size=batch_size,
    )


def settle(entry: Entry, result: Result) -> None:
    """Answers the entry's caller, unless it has its answer or has left."""
    if entry.future.done():
        return
    if isinstance(result, ApiError):
        entry.future.set_exception(result)
    else:
        entry.future.set_result(result)
