"""Heatmaps, and what can be done with one."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True, slots=True)
class Heatmap:
    """A heatmap of `width` by `height` pixels, in `data` or, where that is None, behind `url` until `expires_at`.

    `format` is `png` or `npy`. `raw_min` and `raw_max` are those of the map before it was enlarged and stretched to
    0 to 1; a `degenerate` map is constant, and so says nothing. `target` is the id of the class that is explained.
    """

    format: str
    width: int
    height: int
    colormap: str
    overlay: bool
    layer: str
    method: str
    target: str
    normalization: str
    raw_min: float
    raw_max: float
    degenerate: bool
    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    expires_at: datetime | None = None

    @property
    def array(self) -> np.ndarray[Any, Any]:
        """The pixels: of a PNG uint8 (height, width, 3), RGB as drawn; of an NPY float32 (height, width), 0 to 1.

        Needs numpy, and Pillow for a PNG (`camserve-client[images]`). Raises ValueError where there is no data.
        """
        import numpy as np

        if self.format == "npy":
            return np.asarray(np.load(io.BytesIO(self._bytes()), allow_pickle=False))
        return np.asarray(self.to_pil())

    def to_pil(self) -> Image.Image:
        """Returns the picture as RGB; an NPY in shades of gray, 0 black and 1 white.

        Needs Pillow (`camserve-client[images]`). Raises ValueError where there is no data.
        """
        from PIL import Image

        if self.format == "npy":
            return Image.fromarray((self.array * 255).round().astype("uint8")).convert("RGB")
        with Image.open(io.BytesIO(self._bytes())) as picture:
            return picture.convert("RGB")

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file that `path` ends in: as it came where that is its format, else as Pillow writes it.

        Raises ValueError where there is no data, for an ending that Pillow does not know, and for NPY of a PNG.
        """
        target = Path(path)
        ending = target.suffix.removeprefix(".").lower()
        if ending == "npy" and self.format != "npy":
            raise ValueError('a PNG holds colours and no numbers: ask for Cam(format="npy")')
        if ending in ("", self.format):
            target.write_bytes(self._bytes())
        else:
            self.to_pil().save(target)
        return target

    def _bytes(self) -> bytes:
        if self.data is None:
            raise ValueError("the heatmap is behind its url: `await client.fetch(heatmap)` gives one with data")
        return self.data
