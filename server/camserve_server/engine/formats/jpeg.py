"""JPEG: what its markers say, and decoding at a fraction of its size."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Final

from PIL import JpegImagePlugin

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import exif
from camserve_server.engine.formats.colour import to_srgb
from camserve_server.engine.formats.raster import Limits, Raster, Want, shrink_factor
from camserve_server.engine.formats.source import PictureFile

# Beyond this many decoded pixels a drawing may be enlarged a little instead of decoding four times as many.
_LARGE_PIXELS: Final = 32_000_000
_LARGE_GAP: Final = 0.8
_MAX_SEGMENTS: Final = 10_000
_CHUNK_BYTES: Final = 1 << 20
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
# Without a length: stuffing, TEM, RST0 to RST7, SOI.
_STANDALONE: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})


@dataclass(slots=True)
class JpegHeader:
    """The frame header, and what it costs to decode: `scan_offset` is where the first scan starts."""

    width: int
    height: int
    components: list[tuple[int, int]]
    progressive: bool
    multiscan: bool
    scan_offset: int
    orientation: int

    @property
    def coefficient_bytes(self) -> int:
        """Memory that the decoder needs for all coefficients at once; 0 when one scan carries everything."""
        if not self.multiscan:
            return 0
        widest, tallest = (max(factors) for factors in zip(*self.components, strict=True))
        columns, rows = -(-self.width // (8 * widest)), -(-self.height // (8 * tallest))
        return sum(columns * across * rows * down * 128 for across, down in self.components)


def read_header(file: PictureFile) -> JpegHeader:
    """Read the markers up to the first scan; raises IMAGE_DECODING_FAILED or IMAGE_REJECTED."""
    offset, orientation, frame = 2, 1, None
    for _ in range(_MAX_SEGMENTS):
        head = file.exactly(offset, 4)
        if head[0] != 0xFF:
            # libjpeg skips garbage between segments; so do we, up to the next marker.
            offset = _next_marker(file, offset)
            continue
        marker = head[1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker in _STANDALONE:
            offset += 2
            continue
        length = int.from_bytes(head[2:4], "big")
        if marker == 0xD9 or length < 2:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        if marker in _FRAMES and frame is None:
            frame = (marker, file.exactly(offset + 4, length - 2))
        elif marker == 0xE1 and orientation == 1:
            body = file.at(offset + 4, length - 2)
            if body.startswith(b"Exif\x00"):
                orientation = exif.orientation(body[6:])
        elif marker == 0xDA:
            if frame is None:
                raise ApiError(Reason.IMAGE_DECODING_FAILED)
            components_in_scan = file.exactly(offset + 4, 1)[0]
            return _header(frame[0], frame[1], components_in_scan, offset, orientation)
        offset += 2 + length
    raise ApiError(Reason.IMAGE_REJECTED)


def check(header: JpegHeader, file: PictureFile, limits: Limits) -> None:
    """Refuse what would cost too much memory or too many scans, before decoding: raises IMAGE_REJECTED."""
    if not header.multiscan:
        return
    if header.coefficient_bytes > limits.memory_bytes:
        raise ApiError(Reason.IMAGE_REJECTED)
    scans = count_scans(file, header.scan_offset, limits.max_jpeg_scans + 1)
    if scans > limits.max_jpeg_scans or scans * header.width * header.height > limits.max_jpeg_scan_pixels:
        raise ApiError(Reason.IMAGE_REJECTED)


def count_scans(file: PictureFile, offset: int, enough: int) -> int:
    """Count start-of-scan markers from `offset` to the end of the picture, stopping at `enough`."""
    scans, last = 0, b""
    while scans < enough and (chunk := file.at(offset, _CHUNK_BYTES)):
        offset += len(chunk)
        chunk = last + chunk
        end = chunk.find(b"\xff\xd9")
        scans += chunk.count(b"\xff\xda", 0, end if end >= 0 else len(chunk))
        if end >= 0:
            break
        # A marker may be cut in two by the chunks' border.
        last = b"\xff" if chunk.endswith(b"\xff") else b""
    return scans


def load(file: PictureFile, header: JpegHeader, wants: list[Want]) -> Raster:
    """Decode to an upright RGB picture at a size that meets every want."""
    image = JpegImagePlugin.JpegImageFile(io.BufferedReader(file, 1 << 16))
    if image.size != (header.width, header.height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    width, height = header.width, header.height
    upright = (height, width) if exif.swaps_sides(header.orientation) else (width, height)
    shrink = _dct_shrink(*upright, wants)
    if shrink > 1:
        image.draft(None, (max(1, width // shrink), max(1, height // shrink)))
    # Pillow picks the scale itself, and picks a larger one for tiny pictures.
    shrink = next(s for s in (1, 2, 4, 8) if image.size == (-(-width // s), -(-height // s)))
    image.load()
    rgb = exif.upright(to_srgb(image, image.info.get("icc_profile")), header.orientation)
    # The partial last cell of the stored picture comes first where the orientation mirrors it.
    mirrored_x, mirrored_y = exif.mirrored_axes(header.orientation)
    spare = (mirrored_x * (image.width - width / shrink), mirrored_y * (image.height - height / shrink))
    if exif.swaps_sides(header.orientation):
        spare = (spare[1], spare[0])
    return Raster(rgb, *upright, shrink, *spare)


def _dct_shrink(width: int, height: int, wants: list[Want]) -> int:
    shrink = _power_of_two(shrink_factor(width, height, wants))
    if shrink < 8 and width * height > _LARGE_PIXELS * shrink * shrink:
        relaxed = [Want(w.width, w.height, w.gap if w.gap > 1 else _LARGE_GAP) for w in wants]
        shrink = _power_of_two(shrink_factor(width, height, relaxed))
    return shrink


def _power_of_two(factor: int) -> int:
    return next(power for power in (8, 4, 2, 1) if power <= factor)


def _next_marker(file: PictureFile, offset: int) -> int:
    while chunk := file.at(offset, _CHUNK_BYTES):
        found = chunk.find(b"\xff")
        if found >= 0:
            return offset + found
        offset += len(chunk)
    raise ApiError(Reason.IMAGE_DECODING_FAILED)


def _header(marker: int, body: bytes, components_in_scan: int, scan_offset: int, orientation: int) -> JpegHeader:
    if len(body) < 6 or len(body) < 6 + 3 * body[5] or not body[5]:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    components = [(body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(body[5])]
    if not all(1 <= across <= 4 and 1 <= down <= 4 for across, down in components):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    progressive = marker in _PROGRESSIVE
    return JpegHeader(
        width=int.from_bytes(body[3:5], "big"),
        height=int.from_bytes(body[1:3], "big"),
        components=components,
        progressive=progressive,
        multiscan=progressive or components_in_scan < len(components),
        scan_offset=scan_offset,
        orientation=orientation,
    )
