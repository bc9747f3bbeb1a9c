"""Images that the client's tests send."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from PIL import Image
from tests.images import GOLDEN, star_png

STAR = GOLDEN / "star.png"
SQUARE = GOLDEN / "square.png"


@cache
def noise(side_px: int) -> bytes:
    """A PNG of about three bytes a pixel, which no encoder makes smaller."""
    pixels = np.random.default_rng(side_px).integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


__all__ = ["SQUARE", "STAR", "noise", "star_png"]
