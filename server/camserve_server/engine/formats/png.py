"""PNG: its chunks, and decoding by Pillow at normal sizes and by libvips row by row above."""

from __future__ import annotations

import io
import mmap
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageFile, PngImagePlugin

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import exif
from camserve_server.engine.formats.colour import eight_bits, on_white, paste_on_white, picture, to_srgb
from camserve_server.engine.formats.raster import BandShrinker, Limits, Raster, Want, shrink_factor
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.formats.vips import VipsPicture

# Below this Pillow is quicker, and its 4 to 9 bytes per pixel are affordable.
_PILLOW_PIXELS: Final = 16_000_000
# A file of the largest size in chunks of 1 kB, where libpng writes 8 kB.
_MAX_CHUNKS: Final = 100_000
_MAX_EXIF_BYTES: Final = 1 << 20
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BLOCK_BYTES: Final = 1 << 16
# Of each pass: the first column and row, and the steps to the next ones.
_PASSES: Final = (
    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
)  # fmt: skip


def _skipped(stream: PngImagePlugin.PngStream, _: int, length: int) -> bytes:
    """Read a chunk over: Pillow would unpack its text, refuse much of it, and nobody wants it."""
    if stream.fp is None:
        raise OSError("the file is closed")
    return ImageFile._safe_read(stream.fp, length)


def _first_profile(stream: PngImagePlugin.PngStream, position: int, length: int) -> bytes:
    """Unpack the first colour profile only, as libpng does: each may be a megabyte, from a kilobyte."""
    if "icc_profile" in stream.im_info:
        return _skipped(stream, position, length)
    return _profile(stream, position, length)


_profile = PngImagePlugin.PngStream.chunk_iCCP
for _name in ("chunk_tEXt", "chunk_zTXt", "chunk_iTXt"):
    setattr(PngImagePlugin.PngStream, _name, _skipped)
PngImagePlugin.PngStream.chunk_iCCP = _first_profile  # type: ignore[method-assign, assignment]


@dataclass(slots=True)
class PngHeader:
    """IHDR and what the other chunks add."""

    width: int
    height: int
    depth: int
    colour_type: int
    interlaced: bool
    transparency: bytes | None = None
    animated: bool = False
    orientation: int = 1


def read_header(file: PictureFile) -> PngHeader:
    """Walk all chunks by their lengths; raises IMAGE_DECODING_FAILED when the chain does not reach IEND."""
    first = file.exactly(8, 25)
    if first[:8] != b"\x00\x00\x00\x0dIHDR":
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    header = PngHeader(
        width=int.from_bytes(first[8:12], "big"),
        height=int.from_bytes(first[12:16], "big"),
        depth=first[16],
        colour_type=first[17],
        interlaced=first[20] != 0,
    )
    if header.colour_type not in _SAMPLES:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    offset, seen_data, seen_exif = 33, False, False
    for _ in range(_MAX_CHUNKS):
        if seen_data and file.held < min(file.size, offset + 8):
            return header  # the rest of the data, which is not here
        head = file.exactly(offset, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if offset + 12 + length > file.size or not kind.isalpha():
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        if kind == b"IEND":
            return header
        if kind == b"IDAT":
            seen_data = True
        elif kind == b"acTL" and not seen_data:
            header.animated = True
        elif kind == b"eXIf" and length <= _MAX_EXIF_BYTES and not seen_exif:
            seen_exif = True
            header.orientation = exif.orientation(file.exactly(offset + 8, length))
        elif kind == b"tRNS" and not seen_data and length <= 256:
            header.transparency = file.exactly(offset + 8, length)
        offset += 12 + length
    raise ApiError(Reason.IMAGE_REJECTED)


def check(header: PngHeader, limits: Limits) -> None:
    """Refuse an interlaced picture that does not fit in memory: raises IMAGE_REJECTED."""
    # Seven passes over the whole picture leave no way to read it in bands.
    bits = header.depth * _SAMPLES[header.colour_type]
    if header.interlaced and header.width * header.height * bits // 8 > limits.memory_bytes // 2:
        raise ApiError(Reason.IMAGE_REJECTED)


def load(file: PictureFile, header: PngHeader, wants: list[Want]) -> Raster:
    """Decode to an upright RGB picture at a size that meets every want."""
    # Pillow cuts 16-bit colours to 8 bits before it could compare them with the transparent one.
    deep_key = header.depth == 16 and header.colour_type == 2 and header.transparency is not None
    if header.width * header.height <= _PILLOW_PIXELS and not deep_key:
        return _load_with_pillow(file, header)
    return _load_in_bands(file, header, wants)


def _open(file: PictureFile, header: PngHeader) -> PngImagePlugin.PngImageFile:
    file.seek(0)
    image = PngImagePlugin.PngImageFile(io.BufferedReader(file, 1 << 16))
    if image.size != (header.width, header.height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return image


def _load_with_pillow(file: PictureFile, header: PngHeader) -> Raster:
    image = _open(file, header)
    icc = image.info.get("icc_profile")
    # Pillow takes the end of the compressed data for the end of the picture, and leaves the other rows as they were.
    # So noise goes into the row that is decoded last; where it stays, or would be in a row of several passes, we count.
    last = header.height - 1 - (header.height % 2 if header.interlaced else 0)
    size = (header.width, 1)
    noise = Image.frombytes(image.mode, size, os.urandom(len(Image.new(image.mode, size).tobytes())))
    canvas = Image.new(image.mode, image.size, None)
    canvas.paste(noise, (0, last))
    image.im = canvas.im
    image.load()
    stays = last < 0 or image.crop((0, last, header.width, last + 1)).tobytes() == noise.tobytes()
    if stays and not _has_all_rows(file, header):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    flat = exif.upright(_flatten(image, header), header.orientation)
    return Raster(to_srgb(flat, icc), *flat.size, 1)


def _has_all_rows(file: PictureFile, header: PngHeader) -> bool:
    """Unpack the data once more, to count it."""
    missing = _unpacked_bytes(header)
    unpacking = zlib.decompressobj()
    for block in _data(file):
        packed = block
        while packed and missing > 0:
            missing -= len(unpacking.decompress(packed, _BLOCK_BYTES))
            packed = unpacking.unconsumed_tail
    return missing <= 0


def _unpacked_bytes(header: PngHeader) -> int:
    total = 0
    for x, y, across, down in _PASSES if header.interlaced else ((0, 0, 1, 1),):
        columns, rows = -(-(header.width - x) // across), -(-(header.height - y) // down)
        if columns > 0:
            total += max(0, rows) * (1 + -(-columns * header.depth * _SAMPLES[header.colour_type] // 8))
    return total


def _data(file: PictureFile) -> Iterator[bytes]:
    """Yield what the IDAT chunks hold, of which nothing but IDAT chunks lies between."""
    offset, seen_data = 33, False
    while True:
        head = file.exactly(offset, 8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IDAT":
            seen_data = True
            for place in range(offset + 8, offset + 8 + length, _BLOCK_BYTES):
                yield file.at(place, min(_BLOCK_BYTES, offset + 8 + length - place))
        elif seen_data or kind == b"IEND":
            return
        offset += 12 + length


def _flatten(image: Image.Image, header: PngHeader) -> Image.Image:
    """Return the picture in mode L or RGB, 8 bits, composited on white."""
    if image.mode == "I;16":
        grey = np.asarray(image)
        levels = eight_bits(grey.astype(np.uint16, copy=False))
        if header.transparency is not None:
            levels[grey == int.from_bytes(header.transparency[:2], "big")] = 255
        return Image.fromarray(levels)
    if image.mode in ("1", "L"):
        image = image.convert("L")
        if header.transparency is not None:
            # The chunk holds the grey before it was spread over 0 to 255.
            key = int.from_bytes(header.transparency[:2], "big") * 255 // ((1 << header.depth) - 1)
            image = image.point([255 if level == key else level for level in range(256)])
        return image
    if image.mode == "RGB" and header.transparency is None:
        return image
    if image.mode == "P" and header.transparency is None:
        return image.convert("RGB")
    if image.mode in ("P", "RGB"):
        image = image.convert("RGBA")
    mode = {"LA": "L", "RGBA": "RGB"}[image.mode]
    return paste_on_white(image.convert(mode), image.getchannel("A"))


def _load_in_bands(file: PictureFile, header: PngHeader, wants: list[Want]) -> Raster:
    # Only to learn the profile; nothing is decoded by opening.
    icc = _open(file, header).info.get("icc_profile")
    width, height = header.width, header.height
    upright = (height, width) if exif.swaps_sides(header.orientation) else (width, height)
    shrinker = BandShrinker(width, height, shrink_factor(*upright, wants), header.orientation)
    source = VipsPicture(mmap.mmap(file.fd, file.size, prot=mmap.PROT_READ), "png")
    if (source.width, source.height) != (width, height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    for rows in source.rows(shrinker.bands(source.bytes_per_row * 3)):
        shrinker.add(_flat_rows(rows))
    return shrinker.raster(icc)


def _flat_rows(rows: np.ndarray[Any, Any]) -> Image.Image:
    if rows.dtype == np.uint16:
        rows = eight_bits(rows)
    if rows.shape[2] in (2, 4):
        return on_white(rows[..., :-1], rows[..., -1])
    return picture(rows)
