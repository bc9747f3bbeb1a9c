"""What is asked of an image."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from camserve_server.engine.buffers import SharedBuffer


@dataclass(frozen=True, slots=True)
class HeatmapOptions:
    """How a heatmap is wanted; `size` None means the picture's own size, `target` None the top class."""

    layer: str = "auto"
    colormap: str = "jet"
    overlay: bool = False
    format: Literal["png", "npy"] = "png"
    size: tuple[int, int] | None = None
    method: str = "gradcam"
    target: str | None = None
    alpha: float = 0.5


@dataclass(frozen=True, slots=True)
class InferOptions:
    """What is asked of one image."""

    model: str
    model_version: str = "stable"
    longest_side_px: int | None = None
    heatmap: HeatmapOptions | None = None
    top_k: int = 5
    prob_threshold: float = 0.0
    inline: bool = False
    media_type: str | None = None
    file_name: str | None = None
    md5: bytes | None = None


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image comes from: `open` brings its bytes to shared memory; `url` or `storage_id` say from where."""

    open: Callable[[], Awaitable[SharedBuffer]]
    url: str | None = None
    storage_id: str | None = None


@dataclass(frozen=True, slots=True)
class BatchInput:
    """One image of a batch or a job, opened when its turn comes."""

    id: str
    image: ImageSource
    options: InferOptions
