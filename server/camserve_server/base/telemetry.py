"""Logs as JSON lines and metrics for Prometheus."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import orjson
import structlog
from prometheus_client import Counter, Gauge, Histogram

_STAGE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

CALLS = Counter("camserve_calls", "Finished calls.", ["method", "code"])
CALL_SECONDS = Histogram("camserve_call_seconds", "Time of a call.", ["method"], buckets=_STAGE_BUCKETS_S)
CALLS_RUNNING = Gauge("camserve_calls_running", "Calls that run now.")
GATE_CALLS = Gauge("camserve_gate_calls", "Calls for one image that hold a place until they are answered.")
ENGINE_QUEUE = Gauge("camserve_engine_queue", "Images that wait for the device.", ["model", "version"])
ENGINE_WIDTH = Gauge(
    "camserve_engine_width",
    "Batches of a version that can run at once: its actors on Ray, else 1.",
    ["model", "version"],
)
IMAGING_QUEUE = Gauge("camserve_imaging_queue", "Images that wait for an imaging worker.")
IMAGING_BUSY = Gauge("camserve_imaging_busy", "Imaging workers at work.")
IMAGES_IN_FLIGHT_BYTES = Gauge("camserve_images_in_flight_bytes", "Memory that images in flight take.")
STAGE_SECONDS = Histogram(
    "camserve_stage_seconds",
    "Time of one stage of a prediction: queue, decode, inference, cam, render.",
    ["stage"],
    buckets=_STAGE_BUCKETS_S,
)
BATCH_IMAGES = Histogram(
    "camserve_batch_images", "Images of a forward pass.", ["model"], buckets=(1, 2, 4, 8, 16, 32, 64, 128)
)
JOB_ITEMS = Counter("camserve_job_items", "Items of jobs by outcome: succeeded, failed, lost.", ["outcome"])
JOBS_DUE = Counter("camserve_jobs_due", "Jobs that the janitor found due to expire or to be forgotten.")
SCANS = Counter("camserve_scans", "Images that the virus scanner saw by verdict: clean, found, failed.", ["verdict"])
WEBHOOK_ATTEMPTS = Counter(
    "camserve_webhook_attempts",
    "Attempts to deliver an event by verdict: delivered, again, untried, dead, gone.",
    ["verdict"],
)
IDEMPOTENT_CALLS = Counter(
    "camserve_idempotent_calls",
    "Calls with a key by what became of them: executed, replayed, running, reused.",
    ["outcome"],
)
LIMITS_UNCHECKED = Counter(
    "camserve_limits_unchecked", "Questions about a tenant's limits that the store did not answer in time."
)
LIMITER_ANSWERS = Counter(
    "camserve_limiter_answers", "What the edge was told of requests: passed, over the rate, no room.", ["verdict"]
)
MODEL_CALLS = Counter(
    "camserve_model_calls",
    "Predictions of a version: those that are answers, and those that it only made as a shadow.",
    ["model", "version", "role"],
)
MODEL_ERRORS = Counter(
    "camserve_model_errors", "Those of them that failed, not for want of a sound request.", ["model", "version", "role"]
)
MODEL_SECONDS = Histogram(
    "camserve_model_seconds",
    "Time of one of them: its wait for the device, forward pass and map.",
    ["model", "version", "role"],
    buckets=_STAGE_BUCKETS_S,
)
MODEL_COMPARED = Counter(
    "camserve_model_compared",
    "Pictures that a version saw as a shadow, by whether its top class was the answer's: same, other.",
    ["model", "version", "top_class"],
)
CAM_IOU = Histogram(
    "camserve_model_cam_iou",
    "Overlap of a shadow's heatmap with the answer's: intersection over union of their top areas.",
    ["model", "version"],
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
CAM_SHIFT = Histogram(
    "camserve_model_cam_shift",
    "Distance of the centre of a shadow's heatmap from that of the answer's, in diagonals of the picture.",
    ["model", "version"],
    buckets=(0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1),
)
CAMS_BLANK = Counter(
    "camserve_model_cams_blank",
    "Heatmaps of a shadow without structure where the answer's has some.",
    ["model", "version"],
)
# Those that name a version, to be taken out when it is loaded no longer.
VERSION_METRICS = (MODEL_CALLS, MODEL_ERRORS, MODEL_SECONDS, MODEL_COMPARED, CAM_IOU, CAM_SHIFT, CAMS_BLANK)
MODEL_ROLLBACKS = Counter(
    "camserve_model_rollbacks",
    "Canaries that this replica has rolled back, by the first limit that was passed.",
    ["model", "limit"],
)
FIGURES_UNSEEN = Counter(
    "camserve_model_figures_unseen", "Turns of watching the versions in which the store gave no answer."
)
SHADOWS = Counter(
    "camserve_shadows",
    "Answered calls for a shadow by what became of them: shown, failed, dropped, not ready.",
    ["outcome"],
)
ROUTES_REVISION = Gauge("camserve_model_routes_revision", "Revision of a model's routes as known here.", ["model"])
ROUTES_UNSEEN = Counter("camserve_model_routes_unseen", "Looks for changed routes to which the store gave no answer.")
CIRCUIT_STATE = Gauge(
    "camserve_circuit_state",
    "Whether a part is called: 0 yes, 1 one call tries it (half open), 2 it is left alone (open).",
    ["part", "name"],
)
CIRCUITS_OPEN = Gauge(
    "camserve_circuits_open", "Places that callers name, such as origins of images, that are left alone now.", ["part"]
)
JWKS_FETCHES = Counter(
    "camserve_jwks_fetches", "Fetches of the external issuer's keys by outcome: fetched, failed.", ["outcome"]
)
LOG_FAILURES = Counter("camserve_log_failures", "Writes of log lines that failed; the lines are lost.")
OBJECTS_EXPIRED = Counter("camserve_objects_expired", "Objects that the janitor removed.")


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Writes every log event as one JSON line to `stream` (default: standard error).

    A line that cannot be written is lost and counted: a full disk must not fail the calls that would be told of.
    """
    lossy: Any = _Lossy(stream or sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dump),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(lossy),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=lossy, format="%(name)s: %(message)s")


class _Lossy:
    """As much of a text stream as loggers use."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with self._counted():
            self._stream.write(text)

    def flush(self) -> None:
        with self._counted():
            self._stream.flush()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            LOG_FAILURES.inc()


def _dump(event: dict[str, object], **_: object) -> str:
    return orjson.dumps(event, default=repr).decode()
