"""Pictures of 16k x 16k pixels in every form that is read, written strip by strip, and decoders to compare with."""

from __future__ import annotations

import io
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import pyvips
from PIL import Image

from benchmarks.picture import HUGE_SIDE_PX, photo, write_huge_jpeg

_TILE_PX = 2048
_BMP_SIDE_PX = 8192
_SHRUNK_PX = 128


@dataclass(frozen=True, slots=True)
class HugePicture:
    """A form, its media type, and what writes it."""

    name: str
    media_type: str
    write: Callable[[Path], object]


def huge_pictures() -> list[HugePicture]:
    """Returns the JPEG first."""
    strips = {"tile": False, "compression": "lzw", "predictor": "horizontal"}
    tiles = {"tile": True, "tile_width": 256, "tile_height": 256, "compression": "deflate", "predictor": "horizontal"}
    plain = {"tile": False, "compression": "none"}
    return [
        HugePicture("JPEG", "image/jpeg", write_huge_jpeg),
        HugePicture("PNG", "image/png", lambda path: _mosaic().pngsave(str(path), compression=1)),
        HugePicture("TIFF, strips, LZW", "image/tiff", lambda path: _mosaic().tiffsave(str(path), **strips)),
        HugePicture("TIFF, tiles, deflate", "image/tiff", lambda path: _mosaic().tiffsave(str(path), **tiles)),
        HugePicture(
            "TIFF, pyramid of tiles", "image/tiff", lambda path: _mosaic().tiffsave(str(path), **tiles, pyramid=True)
        ),
        HugePicture("TIFF, strips", "image/tiff", lambda path: _mosaic().tiffsave(str(path), **plain)),
        HugePicture(f"BMP, {_BMP_SIDE_PX} x {_BMP_SIDE_PX}", "image/bmp", _write_bmp),
    ]


def shrink_times_s(jpeg: Path) -> dict[str, float]:
    """Returns in which time each decoder makes a small picture of a JPEG, in seconds."""

    Image.MAX_IMAGE_PIXELS = None  # the picture is ours

    def by_pillow() -> None:
        with Image.open(jpeg) as picture:
            picture.draft("RGB", (_SHRUNK_PX, _SHRUNK_PX))
            picture.resize((_SHRUNK_PX, _SHRUNK_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)

    def by_opencv() -> None:
        cv2.imread(str(jpeg), cv2.IMREAD_REDUCED_COLOR_8)

    def by_vips() -> None:
        pyvips.Image.thumbnail(str(jpeg), _SHRUNK_PX).write_to_memory()

    times = {}
    for name, decode in (("Pillow", by_pillow), ("OpenCV", by_opencv), ("libvips", by_vips)):
        began = time.monotonic()
        decode()
        times[name] = time.monotonic() - began
    return times


def _mosaic() -> pyvips.Image:
    """Returns a photograph again and again, smooth enough that its files stay below a gigabyte."""
    tile = Image.open(io.BytesIO(photo(_TILE_PX, _TILE_PX)))
    one = pyvips.Image.new_from_array(tile).copy(interpretation="srgb")
    return one.replicate(HUGE_SIDE_PX // _TILE_PX, HUGE_SIDE_PX // _TILE_PX)


def _write_bmp(path: Path) -> None:
    """Writes 24 bits a pixel, strip by strip."""
    tile = Image.open(io.BytesIO(photo(_TILE_PX, _TILE_PX)))
    across = Image.new("RGB", (_BMP_SIDE_PX, _TILE_PX))
    for left in range(0, _BMP_SIDE_PX, _TILE_PX):
        across.paste(tile, (left, 0))
    strip = across.tobytes("raw", "BGR")
    size = _BMP_SIDE_PX * _BMP_SIDE_PX * 3
    head = struct.pack("<2sIHHI", b"BM", 54 + size, 0, 0, 54)
    head += struct.pack("<IiiHHIIiiII", 40, _BMP_SIDE_PX, _BMP_SIDE_PX, 1, 24, 0, size, 0, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(head)
        for _ in range(_BMP_SIDE_PX // _TILE_PX):
            file.write(strip)
