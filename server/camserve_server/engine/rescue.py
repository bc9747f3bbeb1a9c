"""A batch on the device, and what is done when it fails: who is to blame is found out, and the others are answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray

from camserve_server.engine import device as devices
from camserve_server.engine.inference import Explain, Outcome
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import Answer

_log = structlog.get_logger("engine")
_GREY = 128


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a batch.

    `answers` are in order, None for a picture without one. `works` says whether the model is sound: some
    picture was answered, or a grey one of ours was. `too_large` is the smallest number of pictures for which the
    device had not memory enough, None when it had.
    """

    answers: list[Answer | None]
    works: bool
    too_large: int | None


def run_batch(
    model: ModelVersion,
    pictures: Sequence[NDArray[np.uint8]],
    explains: Sequence[Explain | None],
    note_pass: Callable[[], None] = lambda: None,
) -> Ran:
    """Runs a batch as `ModelVersion.run` does, on the same thread, and raises nothing."""
    run = _Run(model, note_pass)
    outcomes = run.outcomes(pictures, explains)
    answers = [None if outcome is None else _as_arrays(outcome) for outcome in outcomes]
    return Ran(answers, any(answer is not None for answer in answers) or run.works(), run.too_large)


def _as_arrays(outcome: Outcome) -> Answer:
    return Answer(
        probs=outcome.probs.numpy(),
        cam=None if outcome.cam is None else outcome.cam.numpy(),
        target=outcome.target,
        disconnected=outcome.disconnected,
        inference_ms=outcome.inference_ms,
        cam_ms=outcome.cam_ms,
    )


class _Run:
    def __init__(self, model: ModelVersion, note_pass: Callable[[], None]) -> None:
        self.too_large: int | None = None
        self._model = model
        self._note_pass = note_pass
        self._works: bool | None = None

    def outcomes(
        self, pictures: Sequence[NDArray[np.uint8]], explains: Sequence[Explain | None]
    ) -> list[Outcome | None]:
        if self._works is False:
            return [None] * len(pictures)
        ran = self._once(pictures, explains)
        if isinstance(ran, list):
            return [self._finite(outcome) for outcome in ran]
        if len(pictures) == 1 or (ran == "failed" and not self.works()):
            return [None] * len(pictures)
        # One picture may fail the batch, so each has a try alone; where memory was short halves may fit.
        parts = len(pictures) if ran == "failed" else 2
        size = -(-len(pictures) // parts)
        return [
            outcome
            for start in range(0, len(pictures), size)
            for outcome in self.outcomes(pictures[start : start + size], explains[start : start + size])
        ]

    def works(self) -> bool:
        """Says, from a picture that nobody sent, whether the model is to blame; asks once."""
        if self._works is None:
            size = self._model.input
            ran = self._once([np.full((size.height, size.width, 3), _GREY, np.uint8)], [None])
            self._works = isinstance(ran, list) and self._finite(ran[0]) is not None
        return self._works

    def _once(
        self, pictures: Sequence[NDArray[np.uint8]], explains: Sequence[Explain | None]
    ) -> list[Outcome] | Literal["failed", "memory"]:
        # Whoever tries again does so after the except clause: the traceback holds on to what the failed try took.
        try:
            return self._model.run(pictures, explains, self._note_pass)
        except (torch.OutOfMemoryError, MemoryError):
            _log.warning("the device has not memory enough", **self._named(pictures))
            self.too_large = min(self.too_large or len(pictures), len(pictures))
        except BaseException:
            # Code of a model that would end the program, or this thread, ends nothing but its batch.
            _log.exception("batch failed", **self._named(pictures))
            return "failed"
        devices.empty_cache(self._model.device)
        return "memory"

    def _finite(self, outcome: Outcome) -> Outcome | None:
        """Returns the outcome unless it holds something that is no number."""
        told = [outcome.probs.sum()] if outcome.cam is None else [outcome.probs.sum(), outcome.cam.max()]
        if all(math.isfinite(float(value)) for value in told):
            return outcome
        _log.error("the model's answer is not finite", model=self._model.name, version=self._model.version)
        return None

    def _named(self, pictures: Sequence[NDArray[np.uint8]]) -> dict[str, object]:
        return {"model": self._model.name, "version": self._model.version, "pictures": len(pictures)}
