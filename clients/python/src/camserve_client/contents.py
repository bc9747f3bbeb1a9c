"""Images as callers have them, and as bytes that can be read from anywhere more than once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, TypeVar, Union, cast

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

S = TypeVar("S")
_CHUNK_BYTES = 256 << 10
_SPOOLED_BYTES = 8 << 20
# What PNG can hold of Pillow's modes; the others go into a TIFF.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
# Modes that no file holds, and those that say the same.
_SAVEABLE = {"HSV": "RGB", "La": "LA", "RGBa": "RGBA"}


@dataclass(frozen=True, slots=True)
class ImageUrl:
    """An image that the service fetches: https, at a public address."""

    url: str


@dataclass(frozen=True, slots=True)
class StorageId:
    """An image that was uploaded before."""

    storage_id: str


# A str or a path names a file; bytes and files hold an encoded image (JPEG, PNG, TIFF or BMP). An array is uint8
# (height, width), (height, width, 3) RGB or (height, width, 4) RGBA, or uint16 (height, width).
ImageSource: TypeAlias = Union[
    str,
    os.PathLike[str],
    bytes,
    bytearray,
    memoryview,
    BinaryIO,
    "Image.Image",
    "np.ndarray[Any, Any]",
    ImageUrl,
    StorageId,
]


class Content:
    """An encoded image of `size_bytes`, of which any part can be read again; close it after use."""

    def __init__(
        self,
        source: Path | BinaryIO,
        size_bytes: int,
        *,
        start: int = 0,
        owned: bool = True,
        blocking: bool = True,
    ) -> None:
        self.size_bytes = size_bytes
        self._path = source if isinstance(source, Path) else Path()
        self._start = start
        self._owned = owned
        self._blocking = blocking
        self._file = None if isinstance(source, Path) else source
        self._closed = False
        # One position for all who read, on threads that may outlast whoever asked.
        self._reading = threading.Lock()

    async def read(self, offset: int, count: int) -> bytes:
        """Returns `count` bytes, fewer at the end; raises OSError when the file became shorter."""
        if not self._blocking:
            return self._read(offset, count)
        data = await asyncio.to_thread(self._read, offset, count)
        if len(data) != min(count, self.size_bytes - offset):
            raise OSError(f"{self._path.name or 'the image'} became shorter while it was read")
        return data

    async def chunks(self, offset: int, end: int, sent: Callable[[int], None] | None = None) -> AsyncIterator[bytes]:
        """Yields the bytes from `offset` to `end`; `sent` is told how far that came, once a chunk was taken."""
        while offset < end:
            data = await self.read(offset, min(_CHUNK_BYTES, end - offset))
            yield data
            offset += len(data)
            if sent:
                sent(offset)

    async def md5(self) -> str:
        """Returns the MD5 of all bytes in base64, as the service takes it against broken transfers."""
        digest = hashlib.md5(usedforsecurity=False)
        async for chunk in self.chunks(0, self.size_bytes):
            await asyncio.to_thread(digest.update, chunk)
        return base64.b64encode(digest.digest()).decode()

    def close(self) -> None:
        """Lets go of the image, once nobody reads it; closes a file that was opened here."""
        with self._reading:
            self._closed = True
            if self._file is not None and self._owned:
                self._file.close()

    def _read(self, offset: int, count: int) -> bytes:
        with self._reading:
            if self._closed:
                raise ValueError("the image is closed")
            if self._file is None:
                self._file = self._path.open("rb")
            self._file.seek(self._start + offset)
            parts = []
            while count and (data := self._file.read(count)):
                parts.append(data)
                count -= len(data)
            return b"".join(parts)


async def content_of(source: ImageSource) -> Content | ImageUrl | StorageId:
    """Returns what an image is sent from; raises OSError for an unreadable file, TypeError for what is no image.

    What cannot be read twice (a pipe, a socket) is kept in memory up to 8 MiB, and in a temporary file beyond. Pillow
    images and arrays are encoded without loss.
    """
    if isinstance(source, ImageUrl | StorageId):
        return source
    if isinstance(source, str) and "://" in source:
        raise ValueError("an image at an address is ImageUrl(address): a str is the path of a file")
    if isinstance(source, str | os.PathLike):
        return await _awaited(_of_path, Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _of_bytes(bytes(source))
    numpy, pillow = sys.modules.get("numpy"), sys.modules.get("PIL.Image")
    if numpy and isinstance(source, numpy.ndarray):
        return _of_bytes(await asyncio.to_thread(_encoded_array, source))
    if pillow and isinstance(source, pillow.Image):
        return _of_bytes(await asyncio.to_thread(_encoded, source))
    if hasattr(source, "read"):
        return await _awaited(_of_file, cast(BinaryIO, source))
    raise TypeError(f"{type(source).__name__} is no image: a path, bytes, a binary file, a Pillow image or an array is")


async def _awaited(make: Callable[[S], Content], source: S) -> Content:
    """Returns the content that a thread makes; one that comes when nobody waits for it any more is closed there."""
    left = threading.Event()

    def work() -> Content:
        content = make(source)
        if left.is_set():
            content.close()
        return content

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        left.set()
        raise


def _of_bytes(data: bytes) -> Content:
    return Content(io.BytesIO(data), len(data), blocking=False)


def _of_path(path: Path) -> Content:
    about = path.stat()
    if stat.S_ISREG(about.st_mode):
        return Content(path, about.st_size)
    # A pipe or a device has no size.
    with path.open("rb") as file:
        return _spooled(file)


def _of_file(file: BinaryIO) -> Content:
    """Leaves a file that can be read twice where it is; its image begins where it stands now."""
    if not isinstance(file.read(0), bytes):
        raise TypeError("a file with an image is opened in binary mode")
    if file.seekable():
        start = file.tell()
        size_bytes = file.seek(0, os.SEEK_END) - start
        file.seek(start)
        return Content(file, size_bytes, start=start, owned=False)
    return _spooled(file)


def _spooled(file: BinaryIO) -> Content:
    spooled = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - closed with its content
    shutil.copyfileobj(file, spooled)
    return Content(cast(BinaryIO, spooled), spooled.tell())


def _encoded_array(array: np.ndarray[Any, Any]) -> bytes:
    from PIL import Image

    known = array.dtype == "uint8" and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4)))
    if not known and not (array.dtype == "uint16" and array.ndim == 2):
        raise TypeError("an array of pixels is uint8 (height, width[, 3 or 4]) or uint16 (height, width)")
    return _encoded(Image.fromarray(array))


def _encoded(picture: Image.Image) -> bytes:
    from PIL import ExifTags, ImageOps

    file = io.BytesIO()
    # Each of these copies all pixels, even where it changes none.
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        # As the file of a camera has them, which is not how they are looked at.
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in _SAVEABLE:
        picture = picture.convert(_SAVEABLE[picture.mode])
    if picture.mode in _PNG_MODES:
        picture.save(file, "PNG", compress_level=1)
    else:
        picture.save(file, "TIFF")
    return file.getvalue()
