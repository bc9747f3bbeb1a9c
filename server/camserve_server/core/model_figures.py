"""What each version does, in figures: of calls that it answers, and of those that it only sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import MODEL_CALLS, MODEL_ERRORS, MODEL_SECONDS, VERSION_METRICS
from camserve_server.core import pass_times
from camserve_server.core.comparisons import Compared, counted
from camserve_server.core.comparisons import series as compared_series
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import Prediction
from camserve_server.stores.model_figures import SPAN_S, Figures, add

Role = Literal["answer", "shadow"]
Span = tuple[str, int]

CLASS = "class "
# The service has no room or ends: another version would have done no better.
_OF_THE_SERVICE = frozenset({Reason.SERVICE_OVERLOADED, Reason.SERVICE_DRAINING})
# The budget of a call ends it a little before the deadline that its prediction has.
_NEARLY_S = 0.1
# Classes of a series that are counted in one span; later ones are counted together.
_MOST_CLASSES = 100
_KEPT_S = 60


def series(version: str, role: Role) -> str:
    """Returns the name of the counts of a version in a role."""
    return f"{version} {role}"


class ModelFigures:
    """Counts for the metrics of this replica, and in spans of time for all replicas together."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spans: dict[Span, Figures] = {}
        self._unsent: set[Span] = set()

    @contextmanager
    def errors(self, version: ModelVersion, role: Role, *, deadline_monotonic: float | None = None) -> Iterator[None]:
        """Counts what goes wrong inside to the version, but not what is wrong with the request.

        A call that is cancelled when its deadline has come waited for the version in vain.
        """
        try:
            yield
        except ApiError as error:
            if error.entry.status >= 500 and error.reason not in _OF_THE_SERVICE:
                self._failed(version, role)
            raise
        except asyncio.CancelledError:
            if deadline_monotonic is not None and time.monotonic() > deadline_monotonic - _NEARLY_S:
                self._failed(version, role)
            raise

    def count(self, version: ModelVersion, role: Role, prediction: Prediction) -> None:
        """Counts a prediction, the time that it took and its top class."""
        MODEL_CALLS.labels(*version.key, role).inc()
        took_ms = prediction.queue_ms + prediction.inference_ms + prediction.cam_ms
        MODEL_SECONDS.labels(*version.key, role).observe(took_ms / 1000)
        figures, name = self._now(version.name), series(version.version, role)
        top = CLASS + version.labels[int(prediction.probs.argmax())].id
        known = figures.get(name, {})
        if top not in known and sum(each.startswith(CLASS) for each in known) >= _MOST_CLASSES:
            top = CLASS
        add(figures, {name: {"calls": 1, top: 1, pass_times.counter(prediction): 1}})

    def compare(self, compared: Compared) -> None:
        """Counts how two versions agree on a picture."""
        name = compared_series(compared.shadow.version, compared.answering.version)
        add(self._now(compared.shadow.name), {name: counted(compared)})

    def forget(self, key: tuple[str, str]) -> None:
        """Takes a version that is loaded no longer out of the metrics."""
        for metric in VERSION_METRICS:
            metric.remove_by_labels(dict(zip(("model", "version"), key, strict=True)))

    def take(self) -> dict[Span, Figures]:
        """Returns the spans that have changed since they were taken last, whole, but none that is long over."""
        oldest = (self._clock.now() - _KEPT_S) // SPAN_S
        self._spans = {span: figures for span, figures in self._spans.items() if span[1] >= oldest}
        taken = {span: self._spans[span] for span in self._unsent if span in self._spans}
        self._unsent.clear()
        return taken

    def give_back(self, taken: Mapping[Span, Figures]) -> None:
        """Has what could not be written be taken again."""
        self._unsent |= taken.keys()

    def _failed(self, version: ModelVersion, role: Role) -> None:
        MODEL_CALLS.labels(*version.key, role).inc()
        MODEL_ERRORS.labels(*version.key, role).inc()
        add(self._now(version.name), {series(version.version, role): {"calls": 1, "errors": 1}})

    def _now(self, model: str) -> Figures:
        span = (model, int(self._clock.now() // SPAN_S))
        self._unsent.add(span)
        return self._spans.setdefault(span, {})
