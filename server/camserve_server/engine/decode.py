"""From a file to the model's input and the drawing's base, in one pass over the file; runs in imaging workers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from PIL import Image

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import bmp, jpeg, png, tiff
from camserve_server.engine.formats.exif import swaps_sides
from camserve_server.engine.formats.raster import Limits, Raster, Want
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.geometry import MAX_DRAWING_PX, Placement, longest_side, place
from camserve_server.engine.imaging_requests import DecodeRequest, DeferredError, Probed
from camserve_server.engine.input_spec import InputSpec
from camserve_server.engine.sniff import MEDIA_TYPES, check_declaration, sniff

_RESAMPLES: Final = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture, with sizes as DecodedImage has them; `pixels` and `base` are RGB."""

    width: int
    height: int
    media_type: str
    sha256: str
    draw_width: int
    draw_height: int
    view: tuple[float, float, float, float]
    pixels: Image.Image
    base: Image.Image | None


def probe(file: PictureFile, declared_media_type: str | None, file_name: str | None, limits: Limits) -> Probed:
    """Check what can be told of a picture from its header.

    Raises ApiError as `decode` does.
    """
    if file.size == 0:
        raise ApiError(Reason.IMAGE_INVALID_FORMAT)
    sniffed = sniff(file)
    check_declaration(sniffed, declared_media_type, file_name)
    pending = _open(sniffed.kind, file, limits)
    return Probed(pending.width, pending.height, MEDIA_TYPES[sniffed.kind])


def decode(file: PictureFile, request: DecodeRequest, limits: Limits) -> Decoded:
    """Check and decode a picture.

    Raises ApiError with the reason the caller gets, DeferredError as the request says, or whatever a decoder raises.
    """
    sha256 = _digest(file, request.expected_md5)
    if file.size == 0:
        raise ApiError(Reason.IMAGE_INVALID_FORMAT)
    sniffed = sniff(file)
    check_declaration(sniffed, request.declared_media_type, request.file_name)
    pending = _open(sniffed.kind, file, limits)
    if request.defer_above_px is not None and pending.width * pending.height > request.defer_above_px:
        raise DeferredError
    shrunk = longest_side(pending.width, pending.height, request.longest_side_px)
    drawing = longest_side(*shrunk, MAX_DRAWING_PX)
    placement = place(*shrunk, request.input)
    base_size = drawing if request.base_side == "input" else request.base_side

    resizes = shrunk != (pending.width, pending.height)
    wants = [Want(*shrunk, gap=1.0)] if resizes else [Want(*placement.resized, gap=2.0)]
    if base_size is not None and not resizes:
        wants.append(Want(*base_size, gap=1.0))
    raster = pending.load(wants)
    if resizes:
        whole = (0.0, 0.0, float(raster.width), float(raster.height))
        raster = Raster(raster.resized(*shrunk, whole, Image.Resampling.BILINEAR), *shrunk, 1)
    return Decoded(
        width=pending.width,
        height=pending.height,
        media_type=MEDIA_TYPES[sniffed.kind],
        sha256=sha256,
        draw_width=drawing[0],
        draw_height=drawing[1],
        view=placement.view,
        pixels=_fit(raster, placement, request.input),
        base=None if base_size is None else _whole(raster, base_size),
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """A picture that passed every check: its upright size, and how to load it."""

    width: int
    height: int
    load: Callable[[list[Want]], Raster]


def _open(kind: str, file: PictureFile, limits: Limits) -> _Opened:
    if kind == "jpeg":
        jpeg_header = jpeg.read_header(file)
        _check_size(jpeg_header.width, jpeg_header.height, limits)
        jpeg.check(jpeg_header, file, limits)
        return _opened(jpeg_header, jpeg_header.orientation, partial(jpeg.load, file, jpeg_header))
    if kind == "png":
        png_header = png.read_header(file)
        if png_header.animated:
            raise ApiError(Reason.IMAGE_ANIMATED_NOT_SUPPORTED)
        _check_size(png_header.width, png_header.height, limits)
        png.check(png_header, limits)
        return _opened(png_header, png_header.orientation, partial(png.load, file, png_header))
    if kind == "tiff":
        tiff_header = tiff.read_header(file)
        _check_size(tiff_header.width, tiff_header.height, limits)
        tiff.check(tiff_header, limits)
        return _opened(tiff_header, tiff_header.orientation, partial(tiff.load, file, tiff_header))
    bmp_header = bmp.read_header(file)
    _check_size(bmp_header.width, bmp_header.height, limits)
    return _opened(bmp_header, 1, partial(bmp.load, file, bmp_header))


class _Sized(Protocol):
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...


def _opened(header: _Sized, orientation: int, load: Callable[[list[Want]], Raster]) -> _Opened:
    width, height = header.width, header.height
    return _Opened(*((height, width) if swaps_sides(orientation) else (width, height)), load)


def _check_size(width: int, height: int, limits: Limits) -> None:
    if width < 1 or height < 1:
        raise ApiError(Reason.IMAGE_DECODING_FAILED)
    if max(width, height) > limits.max_side_px or width * height > limits.max_pixels:
        raise ApiError(
            Reason.IMAGE_TOO_LARGE,
            width=width,
            height=height,
            max_side_px=limits.max_side_px,
            max_pixels=limits.max_pixels,
        )
    if max(width, height) > limits.max_aspect * min(width, height):
        raise ApiError(Reason.IMAGE_ASPECT_RATIO, width=width, height=height, max_aspect=limits.max_aspect)


def _fit(raster: Raster, placement: Placement, spec: InputSpec) -> Image.Image:
    left, top, right, bottom = placement.seen
    across, down = raster.width / placement.resized[0], raster.height / placement.resized[1]
    box = (left * across, top * down, right * across, bottom * down)
    seen = raster.resized(right - left, bottom - top, box, _RESAMPLES[spec.interpolation])
    if seen.size == placement.window:
        return seen
    pixels = Image.new("RGB", placement.window, spec.pad_color)
    pixels.paste(seen, (max(0, -placement.left), max(0, -placement.top)))
    return pixels


def _whole(raster: Raster, size: tuple[int, int]) -> Image.Image:
    if raster.image.size == size and raster.shrink == 1:
        return raster.image
    whole = (0.0, 0.0, float(raster.width), float(raster.height))
    return raster.resized(*size, whole, Image.Resampling.BILINEAR)


def _digest(file: PictureFile, expected_md5: bytes | None) -> str:
    sha256 = hashlib.sha256()
    md5 = hashlib.md5(usedforsecurity=False) if expected_md5 is not None else None
    for offset in range(0, file.size, _CHUNK_BYTES):
        chunk = file.at(offset, _CHUNK_BYTES)
        sha256.update(chunk)
        if md5 is not None:
            md5.update(chunk)
    if md5 is not None and md5.digest() != expected_md5:
        raise ApiError(Reason.IMAGE_MD5_MISMATCH)
    return sha256.hexdigest()
