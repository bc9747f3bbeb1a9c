"""The pictures that are measured with: a photo-like JPEG, a small PNG and a huge JPEG."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SEED = 7
PHOTO_SIDES = (1536, 1024)
HUGE_SIDE_PX = 16_384
_STRIP_ROWS = 256


def photo(width: int = PHOTO_SIDES[0], height: int = PHOTO_SIDES[1]) -> bytes:
    """Returns a JPEG of quality 90 with the spectrum and the grain of a photograph: about 0.45 MB at 1536 x 1024."""
    return _jpeg(_scene(width, height, grain=6.0), quality=90)


def small_picture() -> bytes:
    """Returns a PNG of 96 x 96 pixels with one disc, as a caller of the bundled model might send."""
    picture = Image.new("RGB", (96, 96), (64, 96, 128))
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 72), fill=(220, 180, 60))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def write_huge_jpeg(path: Path, side: int = HUGE_SIDE_PX) -> int:
    """Writes a baseline JPEG of `side` x `side` pixels (a multiple of 256) and returns its bytes: about 80 MB.

    One strip is encoded with a restart marker per row of blocks, after which every row decodes by itself,
    and its data are repeated under a header that says the full height. So neither the picture nor the
    encoder's copy of it ever exists.
    """
    strip = _jpeg(_scene(side, _STRIP_ROWS, grain=12.0), quality=85, restart_marker_rows=1)
    header_size = _scan_start(strip)
    header, scan = bytearray(strip[:header_size]), strip[header_size:-2]
    frame = header.index(b"\xff\xc0")
    header[frame + 5 : frame + 7] = side.to_bytes(2, "big")
    with open(path, "wb") as file:
        file.write(header)
        # A strip has a multiple of 8 rows of blocks, so the marker between two strips is always the eighth.
        file.write(b"\xff\xd7".join([scan] * (side // _STRIP_ROWS)))
        file.write(b"\xff\xd9")
    return path.stat().st_size


def _scene(width: int, height: int, grain: float) -> Image.Image:
    """Returns octaves of smooth colour whose strength falls with their frequency, and grain on top."""
    random = np.random.default_rng(SEED)
    scene = np.zeros((height, width, 3), np.float32)
    for octave in range(1, 8):
        cells = 2**octave
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells * 3 // 2, 3), np.uint8))
        smooth = coarse.resize((width, height), Image.Resampling.BICUBIC)
        scene += np.asarray(smooth, np.float32) * np.float32(0.5 ** (0.8 * octave))
    scene -= scene.min()
    scene *= 255.0 / scene.max()
    scene += random.normal(0.0, grain, (height, width, 1)).astype(np.float32)
    return Image.fromarray(scene.clip(0, 255).astype(np.uint8))


def _jpeg(picture: Image.Image, **options: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return file.getvalue()


def _scan_start(jpeg: bytes) -> int:
    """Returns the offset of the entropy-coded data, which follow the segment SOS."""
    segment = jpeg.index(b"\xff\xda")
    return segment + 2 + int.from_bytes(jpeg[segment + 2 : segment + 4], "big")
