"""BMP: its header, and decoding by Pillow, run-length codes aside."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import BmpImagePlugin, Image

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import bmp_rle
from camserve_server.engine.formats.colour import paste_on_white
from camserve_server.engine.formats.raster import BandShrinker, Raster, Want, shrink_factor
from camserve_server.engine.formats.source import PictureFile

# Pillow's modes of one byte per pixel become RGB in bands above this, not at once.
_WHOLE_PIXELS: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class BmpHeader:
    """The size, as positive numbers."""

    width: int
    height: int


def read_header(file: PictureFile) -> BmpHeader:
    """Read the size; raises IMAGE_DECODING_FAILED."""
    head = file.exactly(14, 12)
    if head[0] == 12:
        return BmpHeader(int.from_bytes(head[4:6], "little"), int.from_bytes(head[6:8], "little"))
    width = int.from_bytes(head[4:8], "little", signed=True)
    # A negative height means that rows go from top to bottom.
    return BmpHeader(max(0, width), abs(int.from_bytes(head[8:12], "little", signed=True)))


def load(file: PictureFile, header: BmpHeader, wants: list[Want]) -> Raster:
    """Decode to an RGB picture at a size that meets every want."""
    opened = BmpImagePlugin.BmpImageFile(io.BufferedReader(file, 1 << 16))
    if opened.size != (header.width, header.height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    image = _runs(file, opened) if opened.tile[0].codec_name == "bmp_rle" else opened
    image.load()
    if image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Many writers leave the fourth byte zero and do not mean an invisible picture.
        image = image.convert("RGB")
    if header.width * header.height <= _WHOLE_PIXELS:
        return Raster(_flatten(image).convert("RGB"), header.width, header.height, 1)
    shrinker = BandShrinker(header.width, header.height, shrink_factor(header.width, header.height, wants), 1)
    for top, rows in shrinker.bands(header.width * 4):
        shrinker.add(_flatten(image.crop((0, top, header.width, top + rows))))
    return shrinker.raster(None)


def _runs(file: PictureFile, image: BmpImagePlugin.BmpImageFile) -> Image.Image:
    """Decode run-length codes, for which Pillow has a loop over the pixels in Python."""
    tile = image.tile[0]
    codes: Any = tile.args
    _, nibbles, direction = codes
    pixels = bmp_rle.decode(file, tile.offset, *image.size, nibbles=nibbles)
    if image.mode == "1":
        return Image.frombuffer("L", image.size, np.minimum(pixels, 1) * np.uint8(255), "raw", "L", 0, direction)
    decoded = Image.frombuffer(image.mode, image.size, pixels, "raw", image.mode, 0, direction)
    if image.palette:
        decoded.putpalette(image.palette)
    return decoded


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode == "RGBA":
        return paste_on_white(image.convert("RGB"), image.getchannel("A"))
    return image.convert("L" if image.mode in ("1", "L") else "RGB")
