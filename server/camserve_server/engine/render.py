"""Drawing a raw class activation map as PNG or NPY; runs in imaging workers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Literal

import numpy as np
from PIL import Image

from camserve_server.engine.colormap import colours
from camserve_server.engine.png_writer import PngWriter

Array = np.ndarray[Any, Any]

# What a band takes stays in the processor's cache.
_BAND_PIXELS: Final = 1 << 17
# A spread below the rounding noise of float32 is no structure, in a drawing and in a comparison.
CONSTANT_RATIO: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Drawing:
    """What to draw: fields as in RenderRequest; `base_fd` holds (height, width, 3) bytes."""

    cam: Array
    view: tuple[float, float, float, float]
    width: int
    height: int
    format: Literal["png", "npy"]
    colormap: str
    overlay: bool
    alpha: float
    base_fd: int | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The number of bytes written, and what the raw map held."""

    size: int
    raw_min: float
    raw_max: float
    degenerate: bool


def draw(drawing: Drawing, file: BinaryIO) -> Drawn:
    """Stretch, place, enlarge and write a map, in bands of rows so that memory stays small."""
    cam = np.nan_to_num(drawing.cam, posinf=0.0, neginf=0.0)
    raw_min, raw_max = float(cam.min()), float(cam.max())
    degenerate = raw_max - raw_min <= CONSTANT_RATIO * max(abs(raw_min), abs(raw_max))
    stretched = np.zeros_like(cam) if degenerate else _stretched(cam, drawing, (raw_min, raw_max))
    bands = placed(stretched.astype(np.float32), drawing.view, drawing.width, drawing.height)
    if drawing.format == "npy":
        _write_npy(bands, drawing, file)
    else:
        _write_png(bands, drawing, file)
    file.flush()
    return Drawn(file.tell(), raw_min, raw_max, degenerate)


def _stretched(cam: Array, drawing: Drawing, raw_range: tuple[float, float]) -> Array:
    """Return the map so scaled that its values span 0 to 1 once it is enlarged.

    Enlarging flattens a peak, so the range is that of the enlarged map, as in pytorch-grad-cam's second stretch; of the
    whole map, the part included that lies outside the picture. A drawing of few pixels may show no range; then it is
    that of the map itself.
    """
    x0, y0, x1, y1 = drawing.view
    columns = _extremes(*_taps(x0, x1, drawing.width, cam.shape[1], whole=True))
    rows = _extremes(*_taps(y0, y1, drawing.height, cam.shape[0], whole=True))
    values = _between(_between(cam.T, *columns).T, *rows)
    low, high = (float(values.min()), float(values.max())) if values.size else raw_range
    if high - low <= CONSTANT_RATIO * max(abs(low), abs(high)):
        low, high = raw_range
    scaled: Array = (cam - low) / (high - low)
    return scaled


def _extremes(first: Array, second: Array, weight: Array, inside: Array) -> tuple[Array, Array, Array]:
    """Return the taps among which the least and greatest values are: between two cells the way is straight."""
    first, second, weight = first[inside], second[inside], weight[inside]
    turns = np.ones(first.size, bool)
    turns[1:-1] = (first[1:-1] != first[:-2]) | (first[1:-1] != first[2:])
    return first[turns], second[turns], weight[turns]


def _between(cam: Array, first: Array, second: Array, weight: Array) -> Array:
    """Return rows between rows of `cam`."""
    start: Array = cam[first]
    between: Array = cam[second]
    between -= start
    between *= weight[:, None]
    between += start
    return between


def placed(cam: Array, view: tuple[float, float, float, float], width: int, height: int) -> Iterator[Array]:
    """Yield bands of the (height, width) float32 drawing of a map that covers `view` of it; the rest is 0.

    Bilinear with half-pixel centres and repeated edges, as cv2.INTER_LINEAR.
    """
    x0, y0, x1, y1 = view
    left, right, across, inside_x = _taps(x0, x1, width, cam.shape[1])
    upper, lower, down, inside_y = _taps(y0, y1, height, cam.shape[0])
    wide = _between(cam.T, left, right, across).T.copy()
    wide[:, ~inside_x] = 0.0
    rows_per_band = max(1, _BAND_PIXELS // width)
    for top in range(0, height, rows_per_band):
        rows = slice(top, top + rows_per_band)
        # Rounding may lead out of 0 to 1 by a little, and levels would wrap around.
        band = _between(wide, upper[rows], lower[rows], down[rows])
        np.clip(band, 0.0, 1.0, out=band)
        band[~inside_y[rows]] = 0.0
        yield band


def _taps(start: float, end: float, size: int, cells: int, *, whole: bool = False) -> tuple[Array, Array, Array, Array]:
    """Return for each pixel centre the two cells beside it, the second one's weight, and whether it is in view.

    `whole` adds the pixels that the drawing would have if it showed all of the view.
    """
    pixels = np.arange(min(0, math.floor(start * size)), max(size, math.ceil(end * size))) if whole else np.arange(size)
    position = ((pixels + 0.5) / size - start) / (end - start)
    inside = (position >= 0.0) & (position <= 1.0)
    cell = np.clip(position * cells - 0.5, 0.0, cells - 1.0)
    first = np.minimum(cell.astype(np.intp), cells - 1)
    return first, np.minimum(first + 1, cells - 1), (cell - first).astype(np.float32), inside


def _write_npy(bands: Iterator[Array], drawing: Drawing, file: BinaryIO) -> None:
    shape = (drawing.height, drawing.width)
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for band in bands:
        file.write(band.astype("<f4", copy=False).data)


def _write_png(bands: Iterator[Array], drawing: Drawing, file: BinaryIO) -> None:
    writer = PngWriter(file, drawing.width, drawing.height)
    palette = colours(drawing.colormap).tobytes()
    opaque = round(drawing.alpha * 256)
    offset = 0
    for band in bands:
        band *= np.float32(255.0)
        # Cut, not rounded, as `np.uint8(255 * cam)` is in pytorch-grad-cam.
        picture = _coloured(band.astype(np.uint8), palette)
        if drawing.overlay and drawing.base_fd is not None:
            base = np.frombuffer(_exactly(drawing.base_fd, picture.size, offset), np.uint8).reshape(picture.shape)
            offset += picture.size
            mixed = base * np.uint16(256 - opaque)
            mixed += picture * np.uint16(opaque)
            mixed += np.uint16(128)
            mixed >>= 8
            picture = mixed.astype(np.uint8)
        writer.add(picture)
    writer.finish()


def _coloured(levels: Array, palette: bytes) -> Array:
    """Return the (height, width, 3) colours of levels; Pillow looks them up three times as fast as `numpy.take`."""
    height, width = levels.shape
    image = Image.frombuffer("P", (width, height), levels, "raw", "P", 0, 1)
    image.putpalette(palette)
    return np.asarray(image.convert("RGB"))


def _exactly(fd: int, n_bytes: int, offset: int) -> bytes:
    data = os.pread(fd, n_bytes, offset)
    if len(data) != n_bytes:
        raise ValueError("the base picture is smaller than the drawing")
    return data
