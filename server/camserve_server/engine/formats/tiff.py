"""TIFF: the page to read, and its samples of any depth as 8-bit colours."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import exif, tiff_tags, tiff_ycbcr
from camserve_server.engine.formats.colour import eight_bits, on_white, picture
from camserve_server.engine.formats.raster import BandShrinker, Limits, Raster, Want, shrink_factor
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.formats.tiff_raw import RawTiff
from camserve_server.engine.formats.tiff_tags import Directory
from camserve_server.engine.formats.vips import VipsPicture

_MAX_PROFILE_BYTES: Final = 4 << 20
_MAX_SAMPLES: Final = 16
_GREYS: Final = (0, 1)
_RGB: Final = 2
_PALETTE: Final = 3
_CMYK: Final = 5
_YCBCR: Final = 6
# Resampling a picture of 0 to 1 overshoots a little; bytes that small would be black anyway.
_FRACTION_OVERSHOOT: Final = 1.5
_ASSOCIATED: Final = 1
_UNASSOCIATED: Final = 2


@dataclass(slots=True)
class TiffHeader:
    """The first full-resolution page and the tags that decide how it is read."""

    page: Directory
    width: int
    height: int
    orientation: int
    bits: int
    samples: int
    photometric: int
    sample_format: int
    extra: tuple[int, ...]

    @property
    def raw(self) -> bool:
        """Whether the samples come from RawTiff, as they are stored."""
        if self.photometric == _YCBCR:
            return tiff_ycbcr.is_raw(self.page)
        return RawTiff.reads(self.page, self.bits, self.samples, self.sample_format)


def read_header(file: PictureFile) -> TiffHeader:
    """Find the page; raises IMAGE_ANIMATED_NOT_SUPPORTED for several, else IMAGE_DECODING_FAILED or IMAGE_REJECTED."""
    page = tiff_tags.full_page(tiff_tags.read_directories(file))
    samples = page.integer(tiff_tags.SAMPLES, 1)
    bits = set(page.integers(tiff_tags.BITS, _MAX_SAMPLES)) or {1}
    formats = set(page.integers(tiff_tags.SAMPLE_FORMAT, _MAX_SAMPLES)) or {1}
    # Samples of different kinds in one pixel are legal and not seen in pictures.
    if not 1 <= samples <= _MAX_SAMPLES or len(bits) > 1 or len(formats) > 1:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    orientation = page.integer(tiff_tags.ORIENTATION, 1)
    width, height = page.size
    photometric = page.integer(tiff_tags.PHOTOMETRIC, -1)
    if photometric < 0:
        photometric = _RGB if samples >= 3 else 1
    header = TiffHeader(
        page=page,
        width=width,
        height=height,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        bits=bits.pop(),
        samples=samples,
        photometric=photometric,
        sample_format=formats.pop(),
        extra=page.integers(tiff_tags.EXTRA_SAMPLES, _MAX_SAMPLES),
    )
    _check_colours(header)
    return header


def _check_colours(header: TiffHeader) -> None:
    """Refuse colours that nothing here converts, since decoders hand over any samples as if they were RGB."""
    if header.photometric == _YCBCR:
        tiff_ycbcr.check(header.page, header.bits, header.samples, header.sample_format)
    elif header.photometric not in (*_GREYS, _RGB, _PALETTE, _CMYK) or (
        header.photometric == _CMYK and header.samples < 4
    ):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)


def check(header: TiffHeader, limits: Limits) -> None:
    """Refuse a tile that does not fit in memory, whatever the picture's size: raises IMAGE_REJECTED."""
    tile = header.page.integer(tiff_tags.TILE_WIDTH, 0) * header.page.integer(tiff_tags.TILE_LENGTH, 0)
    if tile * header.samples * header.bits // 8 > limits.memory_bytes // 8:
        raise ApiError(Reason.IMAGE_REJECTED)


def load(file: PictureFile, header: TiffHeader, wants: list[Want]) -> Raster:
    """Decode to an upright RGB picture at a size that meets every want."""
    width, height = header.width, header.height
    upright = (height, width) if exif.swaps_sides(header.orientation) else (width, height)
    shrinker = BandShrinker(width, height, shrink_factor(*upright, wants), header.orientation)
    levels = _levels(file, header)
    for rows in _samples(file, header, shrinker):
        shrinker.add(_picture(rows, header, levels))
    return shrinker.raster(header.page.data(tiff_tags.ICC_PROFILE, _MAX_PROFILE_BYTES))


def _mapped(file: PictureFile, page: Directory) -> mmap.mmap:
    """Map the file, with 1 in place of an orientation that there is not, which libtiff refuses."""
    if 1 <= page.integer(tiff_tags.ORIENTATION, 1) <= 8:
        return mmap.mmap(file.fd, file.size, prot=mmap.PROT_READ)
    data = mmap.mmap(file.fd, file.size, access=mmap.ACCESS_COPY)
    place, value = page.packed(tiff_tags.ORIENTATION, 1)
    data[place : place + len(value)] = value
    return data


def _samples(file: PictureFile, header: TiffHeader, shrinker: BandShrinker) -> Iterator[np.ndarray[Any, Any]]:
    """Yield bands of (rows, columns, samples), palettes resolved and white-is-zero inverted."""
    if header.raw:
        raw = RawTiff(file, header.page, header.bits, header.samples, header.sample_format)
        bands = shrinker.bands(raw.bytes_per_row)
        return (_resolved(rows, header) for rows in raw.rows(bands))
    tiled = tiff_tags.TILE_WIDTH in header.page.entries
    source = VipsPicture(_mapped(file, header.page), "tiff", page=header.page.index, tiled=tiled)
    if (source.width, source.height) != (header.width, header.height):
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    return source.rows(shrinker.bands(source.bytes_per_row * 4))


def _resolved(rows: np.ndarray[Any, Any], header: TiffHeader) -> np.ndarray[Any, Any]:
    if header.photometric == _PALETTE and rows.dtype.kind == "u":
        table = np.array(header.page.integers(tiff_tags.COLOR_MAP), np.uint16)
        if table.size != 3 << header.bits:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        colours: np.ndarray[Any, Any] = table.reshape(3, -1).T[rows[..., 0]]
        return colours
    if header.bits in (10, 12, 14) or (header.bits < 16 and rows.dtype == np.uint16):
        full = (1 << header.bits) - 1
        rows = (rows.astype(np.uint32) * 65535 // full).astype(np.uint16)
    if header.photometric == 0 and rows.dtype.kind == "u":
        inverted: np.ndarray[Any, Any] = np.iinfo(rows.dtype).max - rows
        return inverted
    if header.photometric in (*_GREYS, _RGB, _CMYK, _YCBCR):
        return rows
    raise ApiError(Reason.IMAGE_DECODING_FAILED)


def _levels(file: PictureFile, header: TiffHeader) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    """Return the mapping of samples to 0..255.

    Unsigned 8 and 16 bits have their full range. Anything else has no agreed range, so the largest value decides:
    up to 1.5 (floats only) it is a fraction, up to 255 a byte, up to 65535 a 16-bit value, and beyond that the
    type's own full range (int16 always) or, for floats, the largest value itself is white. Negative values and
    NaN are black.
    """
    if header.sample_format in (1, 4) and header.bits <= 16:
        return _unsigned_levels
    largest, kind = 0.0, "f"
    whole = BandShrinker(header.width, header.height, 1, 1)
    for rows in _samples(file, header, whole):
        kind = rows.dtype.kind
        finite = rows[np.isfinite(rows)] if kind == "f" else rows
        largest = max(largest, float(finite.max())) if finite.size else largest
    white = _white(largest, kind, header.bits)
    return lambda rows: _scaled(rows, white)


def _white(largest: float, kind: str, bits: int) -> float:
    if kind == "f" and largest <= _FRACTION_OVERSHOOT:
        return 1.0
    full = {"f": largest, "u": 2.0**bits - 1, "i": 2.0 ** (bits - 1) - 1}[kind]
    if largest <= 255:
        return 255.0
    return min(65535.0, full) if largest <= 65535 else full


def _scaled(rows: np.ndarray[Any, Any], white: float) -> np.ndarray[Any, Any]:
    scaled = np.nan_to_num(rows.astype(np.float64), nan=0.0, posinf=white, neginf=0.0) * (255.0 / white)
    levels: np.ndarray[Any, Any] = (np.clip(scaled, 0.0, 255.0) + 0.5).astype(np.uint8)
    return levels


def _unsigned_levels(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if rows.dtype == np.uint16:
        return eight_bits(rows)
    return rows if rows.dtype == np.uint8 else _scaled(rows, 255.0)


def _picture(
    rows: np.ndarray[Any, Any],
    header: TiffHeader,
    levels: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
) -> Image.Image:
    """Return a band as L, RGB or CMYK on white."""
    bands = rows.shape[2]
    if header.photometric == _CMYK and bands >= 4:
        return Image.fromarray(np.ascontiguousarray(levels(rows[..., :4])), "CMYK")
    colours = 3 if bands >= 3 and header.photometric not in _GREYS else 1
    samples = levels(rows[..., :colours])
    if header.photometric == _YCBCR and header.raw:
        matrix = tiff_ycbcr.matrix(header.page, header.bits)
        samples = np.asarray(picture(samples).convert("RGB", matrix))
    if bands > colours:
        kind = header.extra[0] if header.extra else _UNASSOCIATED if bands == colours + 1 else 0
        if kind == _ASSOCIATED and header.raw:
            alpha = levels(rows[..., colours : colours + 1]).astype(np.uint16)
            samples = np.minimum(samples + (255 - alpha), 255).astype(np.uint8)
        elif kind in (_ASSOCIATED, _UNASSOCIATED):
            # libvips has divided by an associated alpha already.
            return on_white(samples, levels(rows[..., colours]))
    return picture(samples)
