"""TIFF directories, classic and Big: which pages a file has, and what the tags of one say."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Final

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats.source import PictureFile

NEW_SUBFILE_TYPE: Final = 254
SUBFILE_TYPE: Final = 255
WIDTH: Final = 256
LENGTH: Final = 257
BITS: Final = 258
COMPRESSION: Final = 259
PHOTOMETRIC: Final = 262
FILL_ORDER: Final = 266
STRIP_OFFSETS: Final = 273
ORIENTATION: Final = 274
SAMPLES: Final = 277
ROWS_PER_STRIP: Final = 278
STRIP_BYTE_COUNTS: Final = 279
PLANAR: Final = 284
PREDICTOR: Final = 317
COLOR_MAP: Final = 320
TILE_WIDTH: Final = 322
TILE_LENGTH: Final = 323
TILE_OFFSETS: Final = 324
TILE_BYTE_COUNTS: Final = 325
EXTRA_SAMPLES: Final = 338
SAMPLE_FORMAT: Final = 339
YCBCR_COEFFICIENTS: Final = 529
YCBCR_SUBSAMPLING: Final = 530
REFERENCE_BLACK_WHITE: Final = 532
ICC_PROFILE: Final = 34675

_MAX_DIRECTORIES: Final = 1024
_MAX_ENTRIES: Final = 4096
# In all directories; libtiff's time for tags that it does not know grows with the square of their number.
_MAX_ENTRIES_OF_FILE: Final = 2048
_MAX_VALUES_BYTES: Final = 64 << 20
_INTEGERS: Final = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_RATIONALS: Final = {5: "I", 10: "i"}
_FLOATS: Final = {11: "f", 12: "d"}
_SIZES: Final = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file spells numbers: byte order for `struct`, and the wider fields of BigTIFF."""

    order: str
    big: bool


@dataclass(slots=True)
class Directory:
    """One page: the place of each tag's values, read when asked for."""

    file: PictureFile
    layout: Layout
    index: int
    entries: dict[int, tuple[int, int, int]] = field(default_factory=dict)

    def integers(self, tag: int, at_most: int | None = None) -> tuple[int, ...]:
        """Return the tag's values, or () when it is absent or holds no integers."""
        kind, count, offset = self.entries.get(tag, (0, 0, 0))
        if kind not in _INTEGERS:
            return ()
        count = min(count, at_most) if at_most is not None else count
        if count * _SIZES[kind] > _MAX_VALUES_BYTES:
            raise ApiError(Reason.IMAGE_REJECTED)
        data = self.file.exactly(offset, count * _SIZES[kind])
        return struct.unpack(f"{self.layout.order}{count}{_INTEGERS[kind]}", data)

    def integer(self, tag: int, default: int) -> int:
        """Return the tag's first value."""
        values = self.integers(tag, 1)
        return values[0] if values else default

    def numbers(self, tag: int, at_most: int) -> tuple[float, ...]:
        """Return up to `at_most` values of any numeric type; a fraction of zero parts is NaN."""
        kind, count, offset = self.entries.get(tag, (0, 0, 0))
        count = min(count, at_most)
        if kind in _RATIONALS:
            data = self.file.exactly(offset, count * 8)
            parts = struct.unpack(f"{self.layout.order}{2 * count}{_RATIONALS[kind]}", data)
            return tuple(a / b if b else math.nan for a, b in zip(parts[::2], parts[1::2], strict=True))
        if kind in _FLOATS:
            data = self.file.exactly(offset, count * _SIZES[kind])
            return struct.unpack(f"{self.layout.order}{count}{_FLOATS[kind]}", data)
        return self.integers(tag, at_most)

    def packed(self, tag: int, value: int) -> tuple[int, bytes]:
        """Return where the first value of a tag of integers is, and the bytes that would make it `value`."""
        kind, _, offset = self.entries[tag]
        return offset, struct.pack(self.layout.order + _INTEGERS[kind], value)

    def data(self, tag: int, at_most: int) -> bytes | None:
        """Return the tag's bytes, or None when it is absent or larger than `at_most`."""
        kind, count, offset = self.entries.get(tag, (0, 0, 0))
        size = count * _SIZES.get(kind, 0)
        return self.file.exactly(offset, size) if 0 < size <= at_most else None

    @property
    def reduced(self) -> bool:
        """Whether the page is a smaller version or a mask of another one."""
        return bool(self.integer(NEW_SUBFILE_TYPE, 0) & 0b101) or self.integer(SUBFILE_TYPE, 1) == 2

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.integer(WIDTH, 0), self.integer(LENGTH, 0)


def read_layout(file: PictureFile) -> tuple[Layout, int]:
    """Return the layout and the first directory's offset."""
    head = file.exactly(0, 16) if file.size >= 16 else file.exactly(0, 8) + bytes(8)
    order = "<" if head[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", head, 2)[0] == 43
    if big and struct.unpack_from(order + "HH", head, 4) != (8, 0):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return Layout(order, big), struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]


def read_directories(file: PictureFile) -> list[Directory]:
    """Follow the chain of directories.

    Raises IMAGE_DECODING_FAILED for a loop or a broken directory, IMAGE_REJECTED for more directories or tags than a
    picture has, and IMAGE_ANIMATED_NOT_SUPPORTED as soon as a second full page is seen.
    """
    layout, offset = read_layout(file)
    directories: list[Directory] = []
    seen: set[int] = set()
    full: Directory | None = None
    n_entries = 0
    while offset:
        if offset in seen:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        count = _count_entries(file, layout, offset)
        n_entries += count
        if len(seen) == _MAX_DIRECTORIES or n_entries > _MAX_ENTRIES_OF_FILE:
            raise ApiError(Reason.IMAGE_REJECTED)
        seen.add(offset)
        directory, offset = _read_directory(file, layout, offset, count, len(directories))
        directories.append(directory)
        if directory.reduced:
            continue
        if full is not None and not _is_pyramid_level(full.size, directory.size):
            raise ApiError(Reason.IMAGE_ANIMATED_NOT_SUPPORTED)
        full = full or directory
    if not directories:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return directories


def full_page(directories: list[Directory]) -> Directory:
    """Return the first page at full resolution."""
    return next((directory for directory in directories if not directory.reduced), directories[0])


def _count_entries(file: PictureFile, layout: Layout, offset: int) -> int:
    count = int.from_bytes(file.exactly(offset, 8 if layout.big else 2), "little" if layout.order == "<" else "big")
    if not 0 < count <= _MAX_ENTRIES:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return count


def _read_directory(file: PictureFile, layout: Layout, offset: int, count: int, index: int) -> tuple[Directory, int]:
    wide = "Q" if layout.big else "I"
    count_size, entry_size, value_size = (8, 20, 8) if layout.big else (2, 12, 4)
    start = offset + count_size
    table = file.exactly(start, count * entry_size)
    directory = Directory(file, layout, index)
    for number in range(count):
        tag, kind, values = struct.unpack_from(f"{layout.order}HH{wide}", table, number * entry_size)
        place = start + (number + 1) * entry_size - value_size
        if values * _SIZES.get(kind, 0) > value_size:
            (place,) = struct.unpack_from(layout.order + wide, table, (number + 1) * entry_size - value_size)
        directory.entries.setdefault(tag, (kind, values, place))
    after = file.at(start + count * entry_size, value_size)
    following = struct.unpack(layout.order + wide, after)[0] if len(after) == value_size else 0
    return directory, following


def _is_pyramid_level(full: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether a page is the full one halved some times; writers of pyramids do not always flag that."""
    return any(
        all(abs(whole / (1 << level) - side) <= 1 for whole, side in zip(full, size, strict=True)) and min(size) > 0
        for level in range(1, 15)
    )
