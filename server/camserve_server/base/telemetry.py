"""Metrics for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import Counter, Gauge, Histogram

from camserve_server.base import tracing

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
IMAGING_MEMORY_BYTES = Gauge(
    "camserve_imaging_memory_bytes", "Resident memory of the imaging workers, each as it was after its last call."
)
IMAGING_RESTARTS = Counter("camserve_imaging_restarts", "Imaging workers that were replaced.")
ENGINE_OLDEST_SECONDS = Gauge(
    "camserve_engine_oldest_seconds",
    "How long that image waits for the device that waits longest.",
    ["model", "version"],
)
DEVICE_SECONDS = Counter(
    "camserve_device_seconds", "Time that forward passes and maps took of the device.", ["model", "version"]
)
DEVICE_MEMORY_BYTES = Gauge(
    "camserve_device_memory_bytes",
    "Memory of the GPU: used by tensors, kept for them by torch, free and total of the device.",
    ["kind"],
)
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
JOB_ITEMS_QUEUED = Gauge("camserve_job_items_queued", "Items of jobs that wait, of the whole service.")
JOB_ITEMS_RUNNING = Gauge("camserve_job_items_running", "Items of jobs under way, of the whole service.")
JOB_TENANTS = Gauge("camserve_job_tenants", "Tenants that have items waiting or under way.")
JOB_OLDEST_SECONDS = Gauge("camserve_job_oldest_seconds", "Time since the item was accepted that waits longest.")
JOBS_DUE = Counter("camserve_jobs_due", "Jobs that the janitor found due to expire or to be forgotten.")
SCANS = Counter("camserve_scans", "Images that the virus scanner saw by verdict: clean, found, failed.", ["verdict"])
WEBHOOK_ATTEMPTS = Counter(
    "camserve_webhook_attempts",
    "Attempts to deliver an event by verdict: delivered, again, untried, dead, gone.",
    ["verdict"],
)
WEBHOOK_LAG_SECONDS = Histogram(
    "camserve_webhook_lag_seconds",
    "Time from an event to its delivery.",
    buckets=(0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 43200, 172800),
)
WEBHOOK_OVERDUE_SECONDS = Gauge(
    "camserve_webhook_overdue_seconds", "Time since the event should have been sent that is most overdue."
)
STORE_SECONDS = Histogram(
    "camserve_store_seconds",
    "Time of one question to a store: redis by command, script or pipeline; objects by what is done.",
    ["store", "operation"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
STORE_ERRORS = Counter("camserve_store_errors", "Those of them that failed.", ["store", "operation"])
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
VERSION_METRICS = (
    DEVICE_SECONDS,
    MODEL_CALLS,
    MODEL_ERRORS,
    MODEL_SECONDS,
    MODEL_COMPARED,
    CAM_IOU,
    CAM_SHIFT,
    CAMS_BLANK,
)
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
AUDIT_FAILURES = Counter("camserve_audit_failures", "Lines of the audit log that could not be written.")
OBJECTS_EXPIRED = Counter("camserve_objects_expired", "Objects that the janitor removed.")


@contextlib.contextmanager
def store_timed(store: str, operation: str, failed: Callable[[Exception], object] = lambda _: True) -> Iterator[None]:
    """Measures a question to a store, and counts it as an error where `failed` says so of what it raises."""
    started = time.monotonic()
    try:
        with tracing.part(f"{store} {operation}", calls=True):
            yield
    except Exception as error:
        if failed(error):
            STORE_ERRORS.labels(store, operation).inc()
        raise
    finally:
        STORE_SECONDS.labels(store, operation).observe(time.monotonic() - started, tracing.exemplar())
