"""Reading PNG and TIFF row by row with libvips, so that a large picture never exists in memory whole."""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats.source import PictureFile

_DTYPES: Final = {
    "uchar": "u1", "char": "i1", "ushort": "u2", "short": "i2",
    "uint": "u4", "int": "i4", "float": "f4", "double": "f8",
}  # fmt: skip


@lru_cache(maxsize=1)
def _pyvips() -> Any:
    # Imported on first use: most pictures need none of it, and it adds 10 MB to a worker.
    import pyvips

    pyvips.block_untrusted_set(True)
    pyvips.cache_set_max(0)
    return pyvips


def _reader(vips: Any, file: PictureFile) -> Any:
    source = vips.SourceCustom()
    source.on_read(file.read)
    source.on_seek(file.seek)
    return source


class VipsPicture:
    """A picture opened for one pass from top to bottom; truncated or damaged data raise an error."""

    def __init__(
        self,
        data: mmap.mmap | PictureFile,
        loader: Literal["png", "tiff"],
        *,
        page: int = 0,
        tiled: bool = False,
    ) -> None:
        """Open `data`; a file is read piece by piece, by position, and maps no memory.

        `page` counts a TIFF's directories from 0, and `tiled` says how that one is stored.
        """
        vips = _pyvips()
        self._data = data
        self._source = _reader(vips, data) if isinstance(data, PictureFile) else vips.Source.new_from_memory(data)
        # libvips takes a damaged tile for a warning, and harmless oddities of strips and PNG chunks as well.
        options: dict[str, Any] = {"access": "sequential", "fail_on": "warning" if tiled else "error"}
        if loader == "tiff":
            options["page"] = page
        operation = vips.Image.tiffload_source if loader == "tiff" else vips.Image.pngload_source
        try:
            image = operation(self._source, **options)
            self._region = vips.Region.new(image)
        except vips.Error as error:
            raise ApiError(Reason.IMAGE_DECODING_FAILED) from error
        self._vips_error = vips.Error
        self.width: int = image.width
        self.height: int = image.height
        self.bands: int = image.bands
        if image.format not in _DTYPES:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        self.dtype = np.dtype(_DTYPES[image.format])

    @property
    def bytes_per_row(self) -> int:
        """Bytes of one row as `rows` yields it."""
        return self.width * self.bands * self.dtype.itemsize

    def rows(self, bands: Iterable[tuple[int, int]]) -> Iterator[np.ndarray[Any, Any]]:
        """Yield (rows, width, bands) arrays for each (first row, number of rows), which must go downwards."""
        for top, count in bands:
            try:
                buffer = self._region.fetch(0, top, self.width, count)
            except self._vips_error as error:
                raise ApiError(Reason.IMAGE_DECODING_FAILED) from error
            yield np.frombuffer(buffer, self.dtype).reshape(count, self.width, self.bands)
