"""What becomes of a picture: its prediction, or the error that its caller gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batcher import Entry


@dataclass(frozen=True, slots=True)
class Answer:
    """One picture's result as arrays, which go from process to process; the fields are those of `Outcome`."""

    probs: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    target: int | None
    disconnected: bool
    inference_ms: float
    cam_ms: float


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


def result_of(entry: Entry, answer: Answer | None, started: float, batch_size: int) -> Result:
    """Returns what the entry's caller gets for the answer of a batch that `started` then."""
    if answer is None:
        return ApiError(Reason.INTERNAL)
    if answer.disconnected:
        return ApiError(Reason.PARAM_LAYER_NOT_FOUND, "The layer does not lead to the model's scores.")
    return Prediction(
        probs=answer.probs,
        cam=answer.cam,
        layer=None if entry.explain is None else entry.explain.layer,
        method=None if entry.explain is None else entry.explain.method,
        target=answer.target,
        queue_ms=(started - entry.enqueued_monotonic) * 1000,
        inference_ms=answer.inference_ms,
        cam_ms=answer.cam_ms,
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
