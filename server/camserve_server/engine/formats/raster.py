"""The picture between decoding and fitting: already shrunk towards what is needed, not yet fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from PIL import Image

from camserve_server.engine.formats import exif
from camserve_server.engine.formats.colour import to_srgb

# A band is what a streaming reader holds of the picture at full size; larger ones leave the processor's cache, and
# their memory comes fresh from the system each time.
BAND_BYTES: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may cost; see ImagingSettings for the meaning of each."""

    max_side_px: int
    max_pixels: int
    max_aspect: int
    max_jpeg_scans: int
    max_jpeg_scan_pixels: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Want:
    """A size at which the whole upright picture will be needed.

    `gap` is how many pixels of the shrunk picture there should be for each wanted one.
    """

    width: int
    height: int
    gap: float


@dataclass(frozen=True, slots=True)
class Raster:
    """An upright RGB picture whose pixels are each `shrink` x `shrink` pixels of the uploaded one.

    `width` and `height` are the uploaded picture's, upright; the last row and column of `image` may be partial.
    The uploaded picture starts `offset_x` and `offset_y` pixels inside `image`.
    """

    image: Image.Image
    width: int
    height: int
    shrink: int
    offset_x: float = 0.0
    offset_y: float = 0.0

    def resized(
        self, width: int, height: int, box: tuple[float, float, float, float], resample: Image.Resampling
    ) -> Image.Image:
        """Return `box` (in pixels of the uploaded picture, upright) at a new size, antialiased."""
        left, right = (min(self.offset_x + x / self.shrink, self.image.width) for x in box[::2])
        top, bottom = (min(self.offset_y + y / self.shrink, self.image.height) for y in box[1::2])
        return self.image.resize((width, height), resample, (left, top, right, bottom), reducing_gap=2.0)


def shrink_factor(width: int, height: int, wants: list[Want]) -> int:
    """Return by how much an upright picture may be shrunk such that every want is still met, at least 1."""
    ratios = (min(width / (want.width * want.gap), height / (want.height * want.gap)) for want in wants)
    return max(1, int(min(ratios)))


class BandShrinker:
    """Shrinks a picture by a whole factor while it is read from top to bottom in bands of rows.

    The grid of cells starts at the upright picture's corner, not at the stored one's, so that a rotated file
    gives exactly the pixels of an upright one.
    """

    def __init__(self, width: int, height: int, factor: int, orientation: int) -> None:
        """Take the stored size; `orientation` is the EXIF value."""
        mirror_x, mirror_y = exif.mirrored_axes(orientation)
        self._width, self._height, self._factor, self._orientation = width, height, factor, orientation
        self._first_columns = width % factor if mirror_x else 0
        self._first_rows = height % factor if mirror_y else 0
        self._image: Image.Image | None = None
        self._next_row = 0

    def bands(self, bytes_per_row: int) -> Iterator[tuple[int, int]]:
        """Yield (first row, number of rows) of the bands to read, in order."""
        cells = max(1, BAND_BYTES // max(1, bytes_per_row * self._factor))
        top = 0
        while top < self._height:
            aligned = self._first_rows if top == 0 and self._first_rows else cells * self._factor
            rows = min(aligned, self._height - top)
            yield top, rows
            top += rows

    def add(self, band: Image.Image) -> None:
        """Take the next band, in a mode that averages meaningfully (L, RGB, CMYK)."""
        factor = self._factor
        if self._image is None:
            size = (-(-self._width // factor), -(-self._height // factor))
            self._image = Image.new(band.mode, size)
        if factor == 1:
            self._image.paste(band, (0, self._next_row))
            self._next_row += band.height
            return
        column = 0
        if self._first_columns:
            first = band.reduce(factor, (0, 0, self._first_columns, band.height))
            self._image.paste(first, (0, self._next_row))
            column = 1
        if self._first_columns < band.width:
            rest = band.reduce(factor, (self._first_columns, 0, band.width, band.height))
            self._image.paste(rest, (column, self._next_row))
        self._next_row += -(-band.height // factor)

    def raster(self, icc: bytes | None) -> Raster:
        """Return the whole picture, upright and in sRGB, after its last band."""
        if self._image is None:
            raise ValueError("no band was added")
        image, self._image = self._image, None
        image = exif.upright(to_srgb(image, icc), self._orientation)
        width, height = self._width, self._height
        if exif.swaps_sides(self._orientation):
            width, height = height, width
        return Raster(image, width, height, self._factor)
