"""Images that tests send."""

from __future__ import annotations

import io
import struct
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

GOLDEN = Path(__file__).parents[1] / "models" / "shapes" / "2" / "golden"


@cache
def star_png() -> bytes:
    """The bundled model's own sample of a star."""
    return (GOLDEN / "star.png").read_bytes()


def encoded(width: int = 64, height: int = 48, fmt: str = "PNG", **options: object) -> bytes:
    """A noisy picture that every encoder keeps at the asked size."""
    pixels = np.random.default_rng(7).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, fmt, **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def directory_last(tiff: bytes) -> bytes:
    """The same little-endian TIFF of one page, with its directory behind everything else."""
    (offset,) = struct.unpack("<I", tiff[4:8])
    (entries,) = struct.unpack("<H", tiff[offset : offset + 2])
    directory = tiff[offset : offset + 2 + 12 * entries] + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + directory
