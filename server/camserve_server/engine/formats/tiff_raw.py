"""TIFF samples that libvips does not read (odd depths, 64 bits, some planes), through libtiff's decompressors.

The trick: libtiff sees another directory behind the file that declares each row's packed bytes to be 8-bit grey
pixels. Reading that gives the decompressed bytes, whatever the compression, and unpacking them is plain arithmetic.
Tiles whose rows have another number of bytes than tiles may have columns become strips of one narrow picture instead.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import tiff_tags as tags
from camserve_server.engine.formats.source import ExtendedFile, PictureFile
from camserve_server.engine.formats.tiff_tags import Directory, Layout
from camserve_server.engine.formats.vips import VipsPicture

BYTEWISE_COMPRESSIONS: Final = frozenset({1, 5, 8, 32773, 32946})
# libvips takes no larger tiles; of strips it takes any, but a little slower.
_MAX_TILE_SIDE: Final = 8192
# Of tiles that are fetched together: more no longer fit the processor's cache.
_FETCH_BYTES: Final = 256 << 10
_LONG: Final = 4
_LONG8: Final = 16


class RawTiff:
    """One page as arrays of its samples, read once from top to bottom."""

    @staticmethod
    def reads(page: Directory, bits: int, samples: int, sample_format: int) -> bool:
        """Whether this class is the one to read such a page."""
        planes = page.integer(tags.PLANAR, 1) == 2 and samples > 1
        half_floats = bits == 16 and sample_format == 3
        odd = bits not in (1, 2, 4, 8, 16, 32) or (bits in (1, 2, 4) and samples > 1)
        strange = odd or (planes and (half_floats or tags.TILE_WIDTH in page.entries))
        return strange and page.integer(tags.COMPRESSION, 1) in BYTEWISE_COMPRESSIONS

    def __init__(self, file: PictureFile, page: Directory, bits: int, samples: int, sample_format: int) -> None:
        """Open the page; raises IMAGE_DECODING_FAILED for what cannot be read."""
        if not (1 <= bits <= 16 or bits in (32, 64)) or sample_format not in (1, 2, 3, 4):
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        if (sample_format == 3 and bits < 16) or (sample_format == 2 and bits % 8):
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        self._page, self._bits = page, bits
        self._width, self._height = page.size
        planes = samples if page.integer(tags.PLANAR, 1) == 2 else 1
        self._per_pixel = samples // planes
        self._tile_width = page.integer(tags.TILE_WIDTH, 0) or self._width
        self._tile_length = page.integer(tags.TILE_LENGTH, 0)
        self._tiled = tags.TILE_WIDTH in page.entries
        # As TIFF 6.0 wants it: of smaller tiles there could be more than there is time for. Of rows in a tile, millions
        # fit into a file of 300 bytes, and libvips takes a time for them that grows with the square of their number.
        length = self._tile_length
        if self._tiled and (not 1 <= length <= _MAX_TILE_SIDE or self._tile_width % 16 or length % 16):
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        self._columns = -(-self._width // self._tile_width)
        self._tile_row_count = -(-self._height // self._tile_length) if self._tiled else 0
        self._tile_bytes = -(-self._tile_width * self._per_pixel * bits // 8)
        self._stacked = self._tiled and (self._tile_bytes % 16 > 0 or self._tile_bytes > _MAX_TILE_SIDE)
        self._predictor = page.integer(tags.PREDICTOR, 1)
        self._dtype = _dtype(bits, sample_format)
        self.bytes_per_row = self._width * samples * (16 if bits % 8 else bits // 8 * 2)
        self._planes = [
            VipsPicture(self._as_bytes(file, plane, planes), "tiff", tiled=self._tiled and not self._stacked)
            for plane in range(planes)
        ]

    def rows(self, bands: Iterable[tuple[int, int]]) -> Iterator[np.ndarray[Any, Any]]:
        """Yield (rows, columns, samples) arrays, as VipsPicture does."""
        wanted = list(bands)
        for parts in zip(*(self._packed(plane, wanted) for plane in self._planes), strict=True):
            yield np.concatenate([self._unpacked(part) for part in parts], axis=2)

    def _packed(self, plane: VipsPicture, bands: list[tuple[int, int]]) -> Iterator[np.ndarray[Any, Any]]:
        """Yield (rows, bytes) arrays, of stacked tiles from one row of them at a time."""
        if not self._stacked:
            yield from (rows[..., 0] for rows in plane.rows(bands))
            return
        tile_rows = self._tile_rows(plane)
        tiles, used = next(tile_rows), 0
        for _, count in bands:
            packed = np.empty((count, self._columns, self._tile_bytes), np.uint8)
            done = 0
            while done < count:
                if used == self._tile_length:
                    tiles, used = next(tile_rows), 0
                taken = min(count - done, self._tile_length - used)
                column = 0
                for some in tiles:
                    place = packed[done : done + taken, column : column + len(some)]
                    place[:] = some[:, used : used + taken].swapaxes(0, 1)
                    column += len(some)
                done, used = done + taken, used + taken
            yield packed.reshape(count, -1)

    def _tile_rows(self, plane: VipsPicture) -> Iterator[list[np.ndarray[Any, Any]]]:
        """Yield one row of tiles after the other, as (tiles, rows, bytes) arrays of a few tiles each."""
        length = self._tile_length
        at_once = max(1, _FETCH_BYTES // (length * self._tile_bytes))
        for first in range(0, self._tile_row_count * self._columns, self._columns):
            end = first + self._columns
            groups = [(tile * length, min(at_once, end - tile) * length) for tile in range(first, end, at_once)]
            yield [rows.reshape(-1, length, self._tile_bytes) for rows in plane.rows(groups)]

    def _unpacked(self, packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        rows = packed.shape[0]
        tiles = packed.reshape(rows * self._columns, self._tile_bytes)
        values = self._tile_width * self._per_pixel
        if self._predictor == 3:
            words = _undo_float_predictor(tiles, self._per_pixel, self._bits // 8)
        elif self._bits % 8:
            bits = np.unpackbits(tiles, axis=1)[:, : values * self._bits].reshape(-1, values, self._bits)
            weights = (1 << np.arange(self._bits - 1, -1, -1)).astype(np.uint16)
            words = bits @ weights
        else:
            words = np.ascontiguousarray(tiles).view(f"{self._page.layout.order}u{self._bits // 8}")
        words = words.reshape(rows * self._columns, self._tile_width, self._per_pixel)
        words = words.astype(words.dtype.newbyteorder("="), copy=False)
        if self._predictor == 2:
            words = _undo_differences(words, self._bits)
        samples = words.view(self._dtype).reshape(rows, self._columns * self._tile_width, self._per_pixel)
        across = samples[:, : self._width]
        return across.astype(np.float32) if across.dtype == np.float16 else across

    def _as_bytes(self, file: PictureFile, plane: int, planes: int) -> ExtendedFile:
        """Return the file with a directory in front of which one plane's bytes are grey pixels."""
        page, tiled, stacked = self._page, self._tiled, self._stacked
        offsets = page.integers(tags.TILE_OFFSETS if tiled else tags.STRIP_OFFSETS)
        counts = page.integers(tags.TILE_BYTE_COUNTS if tiled else tags.STRIP_BYTE_COUNTS)
        share = len(offsets) // planes
        if not share or len(counts) != len(offsets) or len(offsets) % planes:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        mine = slice(plane * share, (plane + 1) * share)
        entries: dict[int, tuple[int, ...]] = {
            tags.WIDTH: (self._tile_bytes * (1 if stacked else self._columns),),
            tags.LENGTH: (self._tile_row_count * self._columns * self._tile_length if stacked else self._height,),
            tags.BITS: (8,),
            tags.COMPRESSION: (page.integer(tags.COMPRESSION, 1),),
            tags.PHOTOMETRIC: (1,),
            tags.FILL_ORDER: (page.integer(tags.FILL_ORDER, 1),),
            tags.SAMPLES: (1,),
            tags.PLANAR: (1,),
        }
        if stacked:
            entries[tags.ROWS_PER_STRIP] = (self._tile_length,)
        elif tiled:
            entries[tags.TILE_WIDTH] = (self._tile_bytes,)
            entries[tags.TILE_LENGTH] = (self._tile_length,)
        else:
            entries[tags.ROWS_PER_STRIP] = (min(page.integer(tags.ROWS_PER_STRIP, self._height), self._height),)
        as_tiles = tiled and not stacked
        entries[tags.TILE_OFFSETS if as_tiles else tags.STRIP_OFFSETS] = offsets[mine]
        entries[tags.TILE_BYTE_COUNTS if as_tiles else tags.STRIP_BYTE_COUNTS] = counts[mine]
        return _with_directory(file, page.layout, entries)


def _dtype(bits: int, sample_format: int) -> np.dtype[Any]:
    if bits % 8:
        return np.dtype(np.uint16)
    return np.dtype(f"{ {1: 'u', 2: 'i', 3: 'f', 4: 'u'}[sample_format] }{bits // 8}")


def _undo_differences(words: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """Undo the horizontal predictor, for which samples of any kind, floats too, are unsigned numbers of `bits` bits."""
    summed = np.cumsum(words, axis=1, dtype=words.dtype)
    summed &= words.dtype.type((1 << bits) - 1)
    return summed


def _undo_float_predictor(tiles: np.ndarray[Any, Any], per_pixel: int, size: int) -> np.ndarray[Any, Any]:
    """Undo Adobe's floating-point predictor: bytes by significance, then differences of bytes."""
    rows = tiles.shape[0]
    summed = np.cumsum(tiles.reshape(rows, -1, per_pixel), axis=1, dtype=np.uint8)
    planes = summed.reshape(rows, size, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(planes).view(f">u{size}")


def _with_directory(file: PictureFile, layout: Layout, entries: dict[int, tuple[int, ...]]) -> ExtendedFile:
    order, kind = layout.order, _LONG8 if layout.big else _LONG
    wide = "Q" if layout.big else "I"
    count_size, value_size = (8, 8) if layout.big else (2, 4)
    start = file.size + -file.size % 8
    place = start + count_size + len(entries) * (4 + 2 * value_size) + value_size
    table, values = bytearray(struct.pack(order + ("Q" if layout.big else "H"), len(entries))), bytearray()
    for tag in sorted(entries):
        packed = struct.pack(f"{order}{len(entries[tag])}{wide}", *entries[tag])
        table += struct.pack(f"{order}HH{wide}", tag, kind, len(entries[tag]))
        if len(packed) > value_size:
            table += struct.pack(order + wide, place + len(values))
            values += packed
        else:
            table += packed
    head = file.exactly(0, 8 if layout.big else 4) + struct.pack(order + wide, start)
    return ExtendedFile(file, head, bytes(start - file.size) + table + bytes(value_size) + values)
