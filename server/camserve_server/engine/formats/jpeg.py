"""JPEG: what its markers say, and decoding at a fraction of its size, as long as no data is missing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from PIL import Image, ImageFile, JpegImagePlugin

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import exif
from camserve_server.engine.formats.colour import to_srgb
from camserve_server.engine.formats.raster import Limits, Raster, Want, shrink_factor
from camserve_server.engine.formats.source import PictureFile

# Beyond this many decoded pixels a drawing may be enlarged a little instead of decoding four times as many.
_LARGE_PIXELS: Final = 32_000_000
_LARGE_GAP: Final = 0.8
_MAX_SEGMENTS: Final = 10_000
# Between segments, where a few fill bytes are usual.
_MAX_JUNK_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 17
_TAIL_BYTES: Final = 1 << 16
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_FIRST_ARITHMETIC: Final = 0xC9
_START_OF_SCAN: Final = 0xDA
_END_OF_IMAGE: Final = 0xD9
# Neither stuffing nor restarts, which stand between the data of a scan. libjpeg looks for no others there.
_MARKER: Final = re.compile(rb"\xff[\xc0-\xcf\xd8-\xfe]")
# Without a length: stuffing, TEM, RST0 to RST7, SOI.
_STANDALONE: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
# Ones, stuffed, which are no code: libjpeg reads up to 8 bytes more than it needs, and fill bytes may swallow one.
_BEHIND_DATA: Final = b"\xff\x00" * 9
# Between scans libjpeg skips all of these. Inside a scan one byte is less than it takes at once, and if it waits for a
# restart, then not later than at the third it goes on to the byte behind.
_BETWEEN_SCANS: Final = (b"\xff\x00", b"\xff\xd0\xff\x00", b"\xff\xd1\xff\x00", b"\xff\xd2\xff\x00")
_DECODER: Final = "jpeg_without_end"
# What Pillow does with other segments before the first scan nobody wants, and a hostile file makes it take minutes.
_READ_BY_PILLOW: Final = frozenset({0xFFE0, 0xFFE2, 0xFFEE, *(0xFF00 | frame for frame in _FRAMES)})

for _marker, (_name, _description, _reader) in JpegImagePlugin.MARKER.items():
    if _reader is not None and _marker not in _READ_BY_PILLOW:
        JpegImagePlugin.MARKER[_marker] = (_name, _description, JpegImagePlugin.Skip)


@dataclass(slots=True)
class JpegHeader:
    """The frame header, and what it costs to decode: `scan_offset` is where the first scan starts."""

    width: int
    height: int
    components: list[tuple[int, int]]
    progressive: bool
    arithmetic: bool
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
    offset, junk_bytes = 2, 0
    orientation: int | None = None
    frame: tuple[int, bytes] | None = None
    for _ in range(_MAX_SEGMENTS):
        head = file.exactly(offset, 4)
        if head[0] != 0xFF:
            # libjpeg skips garbage between segments; so do we, up to the next marker.
            following = _next_marker(file, offset)
            junk_bytes += following - offset
            if junk_bytes > _MAX_JUNK_BYTES:
                raise ApiError(Reason.IMAGE_REJECTED)
            offset = following
            continue
        marker = head[1]
        if marker == 0xFF:
            offset += 1
            continue
        if marker in _STANDALONE:
            offset += 2
            continue
        length = int.from_bytes(head[2:4], "big")
        if marker == _END_OF_IMAGE or length < 2:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        if marker in _FRAMES:
            if frame is not None:
                raise ApiError(Reason.IMAGE_DECODING_FAILED)
            frame = (marker, file.exactly(offset + 4, length - 2))
        elif marker == 0xE1 and orientation is None:
            body = file.at(offset + 4, length - 2)
            if body.startswith(b"Exif\x00"):
                orientation = exif.orientation(body[6:])
        elif marker == _START_OF_SCAN:
            if frame is None:
                raise ApiError(Reason.IMAGE_DECODING_FAILED)
            components_in_scan = file.exactly(offset + 4, 1)[0]
            return _header(frame[0], frame[1], components_in_scan, offset, orientation or 1)
        offset += 2 + length
    raise ApiError(Reason.IMAGE_REJECTED)


def check(header: JpegHeader, file: PictureFile, limits: Limits) -> None:
    """Refuse what would cost too much memory or too many scans, before decoding: raises IMAGE_REJECTED."""
    if not header.multiscan:
        return
    if header.coefficient_bytes > limits.memory_bytes:
        raise ApiError(Reason.IMAGE_REJECTED)
    scans = scan_components(file, header.scan_offset, limits.max_jpeg_scans + 1)
    # A scan of three components costs as much as three scans of one.
    if len(scans) > limits.max_jpeg_scans or sum(scans) * header.width * header.height > limits.max_jpeg_scan_pixels:
        raise ApiError(Reason.IMAGE_REJECTED)


def scan_components(file: PictureFile, offset: int, most: int) -> list[int]:
    """Return how many components each scan has, from `offset` to the end of the picture, of `most` scans at most.

    Raises IMAGE_REJECTED for more segments than a picture has.
    """
    scans: list[int] = []
    for marker, _, body in _segments(file, offset):
        if marker == _END_OF_IMAGE or len(scans) == most:
            break
        if marker == _START_OF_SCAN:
            scans.append(max(1, body))
    return scans


def _data_end(file: PictureFile, header: JpegHeader) -> int | None:
    """Return where the marker behind the last scan's data is, or None where the file ends before."""
    end, in_scan = None, False
    for marker, place, _ in _segments(file, header.scan_offset):
        if in_scan:
            end = place
        if marker == _END_OF_IMAGE or (in_scan and not header.multiscan):
            break
        in_scan = marker == _START_OF_SCAN
    return end


def _segments(file: PictureFile, offset: int) -> Iterator[tuple[int, int, int]]:
    """Yield each marker from `offset` on as libjpeg finds them, not inside segments, its place and first byte."""
    begin, chunk = offset, b""
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(chunk, offset - begin)
        while found is None or found.end() + 3 > len(chunk):
            # A marker may be cut in two by the chunks' border.
            begin = begin + found.start() if found else max(offset, begin + len(chunk) - 1)
            chunk = file.at(begin, _CHUNK_BYTES)
            if len(chunk) < 2:
                return
            if begin + len(chunk) >= file.size:
                chunk += bytes(3)
            found = _MARKER.search(chunk)
        marker = found[0][1]
        yield marker, begin + found.start(), chunk[found.end() + 2]
        offset = begin + found.end()
        if marker not in _STANDALONE:
            offset += max(2, int.from_bytes(chunk[found.end() : found.end() + 2], "big"))
    raise ApiError(Reason.IMAGE_REJECTED)


class _WithoutEnd(ImageFile.PyDecoder):
    """Pillow's decoder, which does not see the end of the data before it has the whole picture.

    At a marker libjpeg makes up what is missing, and the warning is lost in Pillow; without one it asks for more.
    """

    def init(self, args: tuple[Any, ...]) -> None:
        """Take how many bytes there are until the end, whether there are several scans, and Pillow's own arguments."""
        self._left, self._multiscan, *own = args
        self._ended = False
        self._libjpeg = Image._getdecoder(self.mode, "jpeg", tuple(own))

    def setimage(self, im: Any, extents: tuple[int, int, int, int] | None = None) -> None:
        """Take where the pixels go."""
        self._libjpeg.setimage(im, extents)

    def cleanup(self) -> None:
        """Free what libjpeg holds."""
        self._libjpeg.cleanup()

    def decode(self, buffer: Any) -> tuple[int, int]:
        """Take the next bytes; raises IMAGE_DECODING_FAILED when the picture needs more than there are."""
        if self._ended or len(buffer) < self._left:
            used, error = self._libjpeg.decode(buffer)
            self._left -= used
            return used, error
        for data in (buffer[: self._left] + _BEHIND_DATA, *_BETWEEN_SCANS):
            used, error = self._libjpeg.decode(data)
            if used < 0:
                return used, error
            # Only of several scans libjpeg wants to see the end although it has all data.
            if not self._multiscan or used < len(data):
                raise ApiError(Reason.IMAGE_DECODING_FAILED)
        self._ended = True
        used, error = self._libjpeg.decode(buffer[self._left :])
        return (used if used < 0 else self._left + used), error


Image.register_decoder(_DECODER, _WithoutEnd)


def load(file: PictureFile, header: JpegHeader, wants: list[Want]) -> Raster:
    """Decode to an upright RGB picture at a size that meets every want.

    Raises IMAGE_DECODING_FAILED where more than a block or two of the last scan are missing.
    """
    width, height = header.width, header.height
    upright = (height, width) if exif.swaps_sides(header.orientation) else (width, height)
    shrink = _dct_shrink(*upright, wants)
    if header.arithmetic:
        image = _decoded(file, header, shrink, None)
    elif header.multiscan:
        image = _decoded(file, header, shrink, _data_end(file, header))
    else:
        # To look for the first marker takes a twentieth of the time of decoding, and nearly always it is the last one.
        likely = _last_end(file, header)
        image = _decoded(file, header, shrink, likely)
        if _ends_in_grey(image) and (end := _data_end(file, header)) != likely:
            image = _decoded(file, header, shrink, end)
    # Pillow picks the scale itself, and picks a larger one for tiny pictures.
    shrink = next(s for s in (1, 2, 4, 8) if image.size == (-(-width // s), -(-height // s)))
    rgb = exif.upright(to_srgb(image, image.info.get("icc_profile")), header.orientation)
    # The partial last cell of the stored picture comes first where the orientation mirrors it.
    mirrored_x, mirrored_y = exif.mirrored_axes(header.orientation)
    spare = (mirrored_x * (image.width - width / shrink), mirrored_y * (image.height - height / shrink))
    if exif.swaps_sides(header.orientation):
        spare = (spare[1], spare[0])
    return Raster(rgb, *upright, shrink, *spare)


def _decoded(file: PictureFile, header: JpegHeader, shrink: int, end: int | None) -> Image.Image:
    """Decode without a look at what is from `end` on before all pixels are there, unless that is None."""
    image = JpegImagePlugin.JpegImageFile(io.BufferedReader(PictureFile(file.fd, file.size), 1 << 16))
    if image.size != (header.width, header.height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    if shrink > 1:
        image.draft(None, (max(1, header.width // shrink), max(1, header.height // shrink)))
    if end is not None:
        tile = image.tile[0]
        own: Any = tile.args
        image.tile = [tile._replace(codec_name=_DECODER, args=(end, header.multiscan, *own))]
    image.load()
    return image


def _last_end(file: PictureFile, header: JpegHeader) -> int | None:
    begin = max(header.scan_offset, file.size - _TAIL_BYTES)
    found = file.at(begin, _TAIL_BYTES).rfind(b"\xff\xd9")
    return begin + found if found >= 0 else None


def _ends_in_grey(image: Image.Image) -> bool:
    """Whether the last pixel may be of the colour that libjpeg gives to what is missing in a single scan."""
    last = image.crop((image.width - 1, image.height - 1, *image.size)).tobytes()
    return all(126 <= level <= 129 for level in last)


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
        arithmetic=marker >= _FIRST_ARITHMETIC,
        multiscan=progressive or components_in_scan < len(components),
        scan_offset=scan_offset,
        orientation=orientation,
    )
