"""The EXIF orientation, read without any imaging library."""

from __future__ import annotations

import struct
from typing import Final

from PIL import Image

_ORIENTATION_TAG: Final = 0x0112
_MAX_ENTRIES: Final = 1024

_TRANSPOSES: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(exif: bytes) -> int:
    """Return the orientation, 1 to 8, from an EXIF block that starts with its TIFF header; 1 when in doubt."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for index in range(min(count, _MAX_ENTRIES)):
            tag, kind, _ = struct.unpack_from(order + "HHI", exif, start + 2 + 12 * index)
            if tag == _ORIENTATION_TAG:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, start + 10 + 12 * index)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def swaps_sides(value: int) -> bool:
    """Whether this orientation turns width into height."""
    return value >= 5


def mirrored_axes(value: int) -> tuple[bool, bool]:
    """Return whether a stored row and a stored column run against the upright picture's direction."""
    return value in (2, 3, 7, 8), value in (3, 4, 6, 7)


def upright(image: Image.Image, value: int) -> Image.Image:
    """Turn the stored picture upright."""
    return image.transpose(_TRANSPOSES[value]) if value in _TRANSPOSES else image
