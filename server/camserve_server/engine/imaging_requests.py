"""What the imaging pool is asked for and what it gives back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np

from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.colormap import COLORMAPS
from camserve_server.engine.geometry import MAX_DRAWING_PX
from camserve_server.engine.input_spec import InputSpec

MAX_DECLARATION: Final = 128


@dataclass(frozen=True, slots=True)
class ImagingSettings:
    """How many workers there are and what one request may cost.

    A worker may use `worker_memory_bytes` beyond what it needs to start, and `deadline_s` for one request.
    `max_jpeg_scans` and `max_jpeg_scan_pixels` (of every component of every scan) bound the time of progressive JPEG:
    the usual ten scans of the largest picture are 3.76e9.
    A worker is replaced after `recycle_requests` requests or once it keeps more than `recycle_resident_bytes`.
    """

    workers: int = 2
    deadline_s: float = 10.0
    worker_memory_bytes: int = 2 << 30
    max_image_bytes: int = 100_000_000
    max_side_px: int = 16_384
    max_pixels: int = 268_435_456
    max_aspect: int = 200
    max_jpeg_scans: int = 100
    max_jpeg_scan_pixels: int = 4_000_000_000
    queue_limit: int = 256
    recycle_requests: int = 5_000
    recycle_resident_bytes: int = 96 << 20


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """What to make of a picture.

    `declared_media_type` and `file_name` are the caller's; None, "" and application/octet-stream declare nothing,
    and of the name only a known extension counts. `expected_md5` is 16 bytes. `longest_side_px` shrinks the
    picture before anything else. `base_side` asks for a base picture for an overlay: "input" at the picture's own
    (shrunk) size of at most 4096 px a side, or at exactly (width, height). A picture of more than `defer_above_px`
    pixels is not decoded: DeferredError.
    """

    input: InputSpec
    declared_media_type: str | None = None
    file_name: str | None = None
    expected_md5: bytes | None = None
    longest_side_px: int | None = None
    base_side: tuple[int, int] | Literal["input"] | None = None
    defer_above_px: int | None = None

    def as_message(self) -> dict[str, Any]:
        """Return the request as JSON can carry it to a worker, the caller's strings cut to what can matter."""
        md5, media_type, name = self.expected_md5, self.declared_media_type, self.file_name
        return asdict(self) | {
            "expected_md5": None if md5 is None else md5.hex(),
            "declared_media_type": None if media_type is None else media_type[:MAX_DECLARATION],
            "file_name": None if name is None else name[-MAX_DECLARATION:],
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> DecodeRequest:
        """Read what `as_message` made."""
        md5, base_side = message["expected_md5"], message["base_side"]
        spec = message["input"]
        return cls(
            input=InputSpec(**(spec | {"pad_color": tuple(spec["pad_color"])})),
            declared_media_type=message["declared_media_type"],
            file_name=message["file_name"],
            expected_md5=None if md5 is None else bytes.fromhex(md5),
            longest_side_px=message["longest_side_px"],
            base_side=(base_side[0], base_side[1]) if isinstance(base_side, list) else base_side,
            defer_above_px=message["defer_above_px"],
        )


@dataclass(frozen=True, slots=True)
class Probed:
    """What the header of a picture says; `width` and `height` are upright."""

    width: int
    height: int
    media_type: str


class DeferredError(Exception):
    """The picture passed every check but has more pixels than the request wants decoded now."""


@dataclass(slots=True)
class DecodedImage:
    """A picture ready for the model; owns shared memory until closed.

    `width` and `height` are the uploaded picture's, upright; `draw_width` and `draw_height` what "input" means
    for its heatmap. `pixels` is (H, W, 3) uint8 sRGB. `view` (x0, y0, x1, y1) is the part of the picture that
    `pixels` shows, in fractions of it; it reaches outside 0..1 where there is padding. `base` is (h, w, 3) uint8.
    """

    width: int
    height: int
    media_type: str
    sha256: str
    draw_width: int
    draw_height: int
    pixels: np.ndarray[Any, np.dtype[np.uint8]]
    view: tuple[float, float, float, float]
    base: SharedBuffer | None
    decode_ms: float
    _shared: SharedBuffer

    def close(self) -> None:
        """Release the memory; arrays taken from `pixels` stay valid until they are dropped."""
        self.pixels = self.pixels[:0].copy()
        self._shared.close()
        if self.base is not None:
            self.base.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


@dataclass(frozen=True, slots=True)
class RenderRequest:
    """A heatmap to draw.

    `cam` is the (h, w) float32 raw map of the model's input and `view` the part of the picture that it covers.
    The drawing shows the whole picture at `width` x `height`, 1 to 4096 each. `base` holds (height, width, 3)
    bytes and is needed for an overlay; `alpha` is the map's share of it, 0 to 1. `colormap` is one of COLORMAPS.
    """

    cam: np.ndarray[Any, Any]
    view: tuple[float, float, float, float]
    width: int
    height: int
    format: Literal["png", "npy"] = "png"
    colormap: str = "jet"
    overlay: bool = False
    alpha: float = 0.5
    base: SharedBuffer | None = None

    def check(self) -> None:
        """Raise ValueError when a field is outside its documented range."""
        if not (1 <= self.width <= MAX_DRAWING_PX and 1 <= self.height <= MAX_DRAWING_PX):
            raise ValueError("drawing size out of range")
        if self.cam.ndim != 2 or self.cam.size == 0:
            raise ValueError("a map is (h, w)")
        if self.format not in ("png", "npy") or self.colormap not in COLORMAPS:
            raise ValueError("unknown format or colormap")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError("alpha out of range")
        needs_base = self.overlay and self.format == "png"
        if needs_base and (self.base is None or self.base.size != self.width * self.height * 3):
            raise ValueError("an overlay needs a base picture of the drawing's size")


@dataclass(frozen=True, slots=True)
class RenderedHeatmap:
    """A drawn heatmap: the file's bytes as the worker left them in shared memory, released with the last reference, and
    the raw map's range before it was stretched to 0..1.
    """

    data: memoryview
    width: int
    height: int
    raw_min: float
    raw_max: float
    degenerate: bool
    render_ms: float


@dataclass(frozen=True, slots=True)
class ImagingStats:
    """The pool at one moment; `restarts` counts workers that were replaced since the start, `resident_bytes` is the
    memory of all as they were after their last calls.
    """

    workers: int
    alive: int
    busy: int
    queued: int
    restarts: int
    resident_bytes: int
