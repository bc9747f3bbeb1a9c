"""What is answered for an image."""

from __future__ import annotations

from dataclasses import dataclass

from camserve_server.base.errors import ApiError
from camserve_server.core.infer_options import HeatmapOptions
from camserve_server.core.links import Link


@dataclass(frozen=True, slots=True)
class ClassScore:
    """A class and its probability, 0 to 1."""

    id: str
    label: str
    prob: float


@dataclass(frozen=True, slots=True)
class Timings:
    """Where the time of a prediction went, in milliseconds."""

    queue: float
    inference: float
    total: float
    decode: float
    cam: float
    render: float


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A drawn heatmap of `size_bytes`; exactly one of `data` and `link` is there."""

    options: HeatmapOptions
    data: bytes | None
    link: Link | None
    size_bytes: int
    width: int
    height: int
    layer: str
    target: str
    raw_min: float
    raw_max: float
    degenerate: bool


@dataclass(frozen=True, slots=True)
class InferResult:
    """The answer for one image.

    `content_sha256` says what exactly answered; results that an older release stored have None.
    """

    model: str
    model_version: str
    labels_version: str
    calibration_version: str
    width: int
    height: int
    media_type: str
    sha256: str
    classes: list[ClassScore]
    heatmap: Heatmap | None
    timings: Timings
    content_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """How one image of a batch ended: one of `result` and `error` is there."""

    id: str
    result: InferResult | None = None
    error: ApiError | None = None
