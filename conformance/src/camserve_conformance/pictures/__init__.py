"""The pictures that the kit sends: one star, in every encoding that the contract names."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from importlib import resources

WIDTH, HEIGHT = 120, 90


@cache
def picture(name: str) -> bytes:
    """Returns one of the files beside this module."""
    return (resources.files(__package__) / name).read_bytes()


def plain_png(width: int, height: int) -> bytes:
    """Returns a white PNG of that many pixels, one bit each."""
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    return _png(width, height, zlib.compress(row * height))


def claimed_png(width: int, height: int) -> bytes:
    """Returns a PNG that claims to be so large, and holds one row: enough to be refused for its size, not for more."""
    return _png(width, height, zlib.compress(b"\0" + b"\xff" * ((width + 7) // 8)))


def _png(width: int, height: int, data: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
