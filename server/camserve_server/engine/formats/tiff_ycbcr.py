"""YCbCr in TIFF (section 21 of TIFF 6.0): which pages can be read, and the way from their samples to RGB."""

from __future__ import annotations

import math
from typing import Final

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import tiff_tags as tags
from camserve_server.engine.formats.tiff_raw import BYTEWISE_COMPRESSIONS
from camserve_server.engine.formats.tiff_tags import Directory

_OLD_JPEG: Final = 6
_JPEG: Final = 7
_REC_601: Final = (0.299, 0.587, 0.114)
_NO_HEADROOM: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def check(page: Directory, bits: int, samples: int, sample_format: int) -> None:
    """Refuse a page that no decoder here turns into the right colours: raises IMAGE_DECODING_FAILED."""
    compression = page.integer(tags.COMPRESSION, 1)
    # What libtiff converts it must see whole: planes that are JPEGs of their own stay as they are, and tiles that it
    # turns into RGBA are turned over by some orientations and are grey where their data end.
    in_one_plane = page.integer(tags.PLANAR, 1) == 1 and samples == 3
    in_strips = in_one_plane and tags.TILE_WIDTH not in page.entries
    if compression == _JPEG:
        right = in_one_plane
    elif compression == _OLD_JPEG:
        right = in_strips
    elif compression not in BYTEWISE_COMPRESSIONS or sample_format != 1:
        right = False
    elif subsampling(page) == (1, 1):
        right = samples >= 3 and 8 <= bits <= 16
    else:
        right = in_strips and bits == 8 and _is_packed(page, compression)
    if not right:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)


def is_raw(page: Directory) -> bool:
    """Whether libtiff hands over such a page unconverted; what is subsampled or JPEG comes as RGB."""
    return page.integer(tags.COMPRESSION, 1) in BYTEWISE_COMPRESSIONS and subsampling(page) == (1, 1)


def subsampling(page: Directory) -> tuple[int, int]:
    """Return how many pixels share a Cb and a Cr, across and down."""
    across, down = (*page.integers(tags.YCBCR_SUBSAMPLING, 2), 2, 2)[:2]
    return across, down


def matrix(page: Directory, bits: int) -> tuple[float, ...]:
    """Return the three rows of four numbers that make RGB of (Y, Cb, Cr, 1), all of 0 to 255.

    Raises IMAGE_DECODING_FAILED for coefficients or references that allow no conversion.
    """
    red, green, blue = _numbers(page, tags.YCBCR_COEFFICIENTS, _REC_601)
    references = _numbers(page, tags.REFERENCE_BLACK_WHITE, _NO_HEADROOM)
    # Deeper samples come scaled to 8 bits. Their references are numbers of their own depth, except that tifffile
    # writes those of 8 bits, which cannot be meant literally.
    if references[1] > 255:
        references = tuple(reference * 255 / ((1 << bits) - 1) for reference in references)
    black, white = references[::2], references[1::2]
    if not green or any(low == high for low, high in zip(black, white, strict=True)):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    y, cb, cr = (full / (high - low) for full, low, high in zip((255, 127, 127), black, white, strict=True))
    cr_red, cb_blue = cr * (2 - 2 * red), cb * (2 - 2 * blue)
    cr_green, cb_green = -cr_red * red / green, -cb_blue * blue / green
    y_green = y * (1 - red - blue) / green
    rows = ((y, 0.0, cr_red), (y_green, cb_green, cr_green), (y, cb_blue, 0.0))
    return tuple(
        number for row in rows for number in (*row, -sum(factor * low for factor, low in zip(row, black, strict=True)))
    )


def _numbers(page: Directory, tag: int, default: tuple[float, ...]) -> tuple[float, ...]:
    if tag not in page.entries:
        return default
    numbers = page.numbers(tag, len(default))
    if len(numbers) != len(default) or not all(map(math.isfinite, numbers)):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return numbers


def _is_packed(page: Directory, compression: int) -> bool:
    """Whether the data are as many as subsampled ones are; of compressed ones that is not known."""
    across, down = subsampling(page)
    if across not in (1, 2, 4) or down not in (1, 2, 4):
        return False
    if compression != 1:
        return True
    width, height = page.size
    height = min(height, page.integer(tags.ROWS_PER_STRIP, height))
    blocks = -(-width // across) * -(-height // down)
    return page.integer(tags.STRIP_BYTE_COUNTS, 0) == blocks * (across * down + 2)
