"""Pictures for tests, made on the spot and written by other people's encoders or by hand."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from camserve_server.engine.buffers import SharedBuffer

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

ORIENT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
"""From stored to upright pixels, per EXIF orientation; 6 and 8 undo each other, the rest themselves."""


def scene(width: int = 97, height: int = 61) -> Pixels:
    """Return a smooth (height, width, 3) picture without any symmetry."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    red = 0.5 + 0.5 * np.sin(7 * x + 2 * y)
    green = x**2 + 0.3 * y
    blue = np.hypot(x - 0.3, y - 0.6)
    return np.rint(255 * np.clip(np.stack([red, green, blue], axis=-1), 0, 1)).astype(np.uint8)


def grey(width: int = 97, height: int = 61) -> Pixels:
    """Return one channel of the scene."""
    return scene(width, height)[..., 0]


def stored(upright: Pixels, orientation: int) -> Pixels:
    """Return how a camera stores an upright picture under this orientation."""
    return np.ascontiguousarray(ORIENT[{6: 8, 8: 6}.get(orientation, orientation)](upright))


def pillow(array: Pixels | Image.Image, kind: str, **options: Any) -> bytes:
    """Write with Pillow."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray[Any, Any], **options: Any) -> bytes:
    """Write with tifffile."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def tiff_of_pieces(pieces: list[bytes], tags: dict[int, list[int]], *, tiled: bool) -> bytes:
    """Write a TIFF of strips or tiles as they are, where no writer at hand makes them."""
    sizes = [len(piece) for piece in pieces]
    offsets = [8 + sum(sizes[:number]) for number in range(len(sizes))]
    tags = {**tags, 324 if tiled else 273: offsets, 325 if tiled else 279: sizes}
    body = b"".join(pieces)
    body += bytes(len(body) % 2)
    place = 8 + len(body) + 2 + 12 * len(tags) + 4
    table, long = struct.pack("<H", len(tags)), b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"<{len(numbers)}I", *numbers)
        table += struct.pack("<HHI", tag, 4, len(numbers))
        table += packed if len(packed) == 4 else struct.pack("<I", place + len(long))
        long += b"" if len(packed) == 4 else packed
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + table + bytes(4) + long


def exif_block(orientation: int) -> bytes:
    """Return an EXIF block with this orientation and nothing else."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    rows: np.ndarray[Any, Any], depth: int, colour_type: int, *before_data: bytes, width: int | None = None
) -> bytes:
    """Write a PNG from its packed rows, unfiltered; `before_data` are chunks to put before IDAT."""
    rows = rows.reshape(rows.shape[0], -1)
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    width = width or rows.shape[1] * rows.itemsize * 8 // (depth * samples)
    header = struct.pack(">IIBBBBB", width, rows.shape[0], depth, colour_type, 0, 0, 0)
    packed = b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + b"".join(before_data)
        + png_chunk(b"IDAT", zlib.compress(packed, 1))
        + png_chunk(b"IEND", b"")
    )


def insert_png_chunk(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Put a chunk right behind IHDR."""
    return data[:33] + png_chunk(kind, body) + data[33:]


def pack_bits(values: np.ndarray[Any, Any], bits: int) -> Pixels:
    """Pack (rows, columns) unsigned values into rows of whole bytes, the highest bit first."""
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(values.shape[0], -1).astype(np.uint8), axis=1)


def bmp(
    array: Pixels, bits: int, *, top_down: bool = False, palette: Pixels | None = None, masks: bytes = b""
) -> bytes:
    """Write an uncompressed BMP; `array` is (h, w, 3) RGB for 24 and 32 bits, else (h, w) numbers."""
    height, width = array.shape[:2]
    if bits == 24:
        rows = array[..., ::-1].reshape(height, -1)
    elif bits == 32:
        rows = np.dstack([array[..., ::-1], np.zeros((height, width), np.uint8)]).reshape(height, -1)
    elif bits == 16:
        rows = array.astype("<u2").view(np.uint8).reshape(height, -1)
    else:
        rows = pack_bits(array, bits)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    body = (rows if top_down else rows[::-1]).tobytes()
    colours = b"" if palette is None else b"".join(bytes([b, g, r, 0]) for r, g, b in palette.tolist())
    offset = 54 + len(masks) + len(colours)
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, 3 if masks else 0, len(body), 0, 0,
        0 if palette is None else len(palette), 0,
    )  # fmt: skip
    return struct.pack("<2sIHHI", b"BM", offset + len(body), 0, 0, offset) + header + masks + colours + body


def shared(data: bytes) -> SharedBuffer:
    """Put bytes into shared memory."""
    buffer = SharedBuffer.create("test")
    buffer.append(data)
    return buffer
