"""What each version does, in figures: of calls that it answers, and of those that it only sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import MODEL_CALLS, MODEL_ERRORS, MODEL_SECONDS
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import Prediction

Role = Literal["answer", "shadow"]

# The service has no room or ends: another version would have done no better.
_OF_THE_SERVICE = frozenset({Reason.SERVICE_OVERLOADED, Reason.SERVICE_DRAINING})


@contextmanager
def errors_counted(version: ModelVersion, role: Role) -> Iterator[None]:
    """Counts what goes wrong inside to the version, but not what is wrong with the request."""
    try:
        yield
    except ApiError as error:
        if error.entry.status >= 500 and error.reason not in _OF_THE_SERVICE:
            _count(version, role)
            MODEL_ERRORS.labels(*version.key, role).inc()
        raise


def count(version: ModelVersion, role: Role, prediction: Prediction) -> None:
    """Counts a prediction and the time from its way to the device until its classes and its map were there."""
    _count(version, role)
    took_ms = prediction.queue_ms + prediction.inference_ms + prediction.cam_ms
    MODEL_SECONDS.labels(*version.key, role).observe(took_ms / 1000)


def _count(version: ModelVersion, role: Role) -> None:
    MODEL_CALLS.labels(*version.key, role).inc()
