"""What calls return: plain, frozen, typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from camserve_client.errors import CamserveError
from camserve_client.heatmap import Heatmap

JobStatus = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
DeliveryStatus = Literal["pending", "delivered", "dead"]
FINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "expired"})


class ClassScore(NamedTuple):
    """A class: its name for people, its id for good, and its calibrated probability, 0 to 1."""

    label: str
    id: str
    prob: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a call went in the service, in milliseconds."""

    queue: int
    inference: int
    total: int
    decode: int
    cam: int
    render: int


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """The image as the service received it: pixels, upright, and the SHA-256 of the file in hex."""

    width: int
    height: int
    media_type: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Result:
    """The answer for one image: classes, most probable first, and the heatmap where one was asked for."""

    classes: tuple[ClassScore, ...]
    heatmap: Heatmap | None
    timings_ms: Timings
    image: ImageInfo
    model_version: str
    content_sha256: str | None
    """The digest of the weights, labels and settings that answered, in hex; None of older releases."""

    @property
    def top(self) -> ClassScore:
        """The most probable class; raises IndexError when the threshold left none."""
        return self.classes[0]


@dataclass(frozen=True, slots=True)
class InferResult(Result):
    """The answer of `infer`. `job_id` names the job that the call became, if it did; then the versions of labels and
    calibration are not told.

    `replayed` says that the answer was given before, under the same idempotency key.
    """

    request_id: str
    model: str
    labels_version: str | None = None
    calibration_version: str | None = None
    job_id: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """The outcome of one image of a batch or a job: `result` where it succeeded, `error` where it failed."""

    id: str
    status: JobStatus
    result: Result | None = None
    error: CamserveError | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts the images of a job by outcome."""

    items: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as it was when it was asked for; `error` says why it failed, `result` is that of a job with one image."""

    job_id: str
    status: JobStatus
    submitted_at: datetime
    expires_at: datetime
    model: str
    model_version: str
    result_summary: Summary
    results_url: str
    started_at: datetime | None = None
    completed_at: datetime | None = None
    error: CamserveError | None = None
    result: Result | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def final(self) -> bool:
        """Is true when the job has ended, one way or another."""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class Upload:
    """An image that is stored; `width` and `height` are None where the beginning of the file did not tell."""

    storage_id: str
    size_bytes: int
    media_type: str
    sha256: str
    created_at: datetime
    expires_at: datetime
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """A link that takes one image from somebody without a token: `method` to `upload_url`, with `headers`."""

    storage_id: str
    upload_url: str
    method: str
    headers: Mapping[str, str]
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Label:
    """A class of a model: its id for good and its name for people."""

    id: str
    label: str


@dataclass(frozen=True, slots=True)
class InputSize:
    """The picture that the network sees, in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model; `labels` are filled when the model was asked for with `full`."""

    version: str
    state: Literal["ready", "loading", "unavailable", "retired"]
    aliases: tuple[str, ...]
    labels_version: str
    calibration_version: str
    input: InputSize
    layers: tuple[str, ...]
    default_layer: str
    classes: int
    golden: Literal["passed", "failed", "none"]
    content_sha256: str
    labels: tuple[Label, ...]
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A model, its newest version first."""

    model: str
    versions: tuple[ModelVersion, ...]


@dataclass(frozen=True, slots=True)
class RequestRate:
    """Requests: for ever, after a pause, and left now."""

    limit: int
    burst: int
    remaining: int


@dataclass(frozen=True, slots=True)
class ImageQuota:
    """Images of one day (UTC)."""

    limit: int
    used: int
    resets_at: datetime


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Calls that may run at once, and those that do."""

    limit: int
    in_use: int


@dataclass(frozen=True, slots=True)
class Retention:
    """How long uploads are kept, and how long jobs may ask to be, in hours."""

    default: float
    max: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What the caller's tenant may do, and how much of it is used."""

    tenant: str
    requests_per_second: RequestRate
    images_per_day: ImageQuota
    concurrency: Concurrency
    max_image_bytes: int
    max_json_bytes: int
    max_batch_size: int
    max_side_px: int
    max_pixels: int
    max_cam_side_px: int
    sync_timeout_s: float
    retention_hours: Retention


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the service."""

    name: str
    healthy: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the replica that answered."""

    status: Literal["serving", "degraded"]
    version: str
    uptime_s: int
    components: tuple[Component, ...]


@dataclass(frozen=True, slots=True)
class Webhook:
    """A webhook; `secret` is told when it is made or rotated, and never again."""

    webhook_id: str
    url: str
    events: tuple[str, ...]
    created_at: datetime
    disabled_at: datetime | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one event at one webhook."""

    event_id: str
    event: str
    job_id: str
    status: DeliveryStatus
    attempts: int
    last_status: int | None = None
    next_attempt_at: datetime | None = None
