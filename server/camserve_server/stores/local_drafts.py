"""Objects of the local store while they are written: whole under their name at the end, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Self

from camserve_server.base.errors import ApiError
from camserve_server.stores.aead import StreamWriter
from camserve_server.stores.local_files import File, make_folder, opened_folder
from camserve_server.stores.preamble import Preamble

InThread = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]

_FLUSH_BYTES = 32 * 1024 * 1024
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Place:
    """Where a draft is written and where it goes: `hour` and `owner` are the folders below the root."""

    root: File
    drafts: File
    hour: str
    owner: str
    object_id: str


class DraftFile:
    """A file that is being written, by one thread at a time; leaving it unpublished removes it.

    So does losing it: a caller who is canceled while a thread begins it never hears of it.
    """

    def __init__(self, place: Place, preamble: Preamble, keys: tuple[bytes, bytes], associated: bytes) -> None:
        self._place = place
        self._preamble = preamble
        self._preamble_key, content_key = keys
        self._associated = associated
        self._name = secrets.token_hex(16)
        self._file = File(os.open(self._name, _CREATE_FLAGS, 0o600, dir_fd=place.drafts.number))
        # As long as somebody writes, however slowly, the janitor of any process sees it.
        fcntl.flock(self._file.number, fcntl.LOCK_EX)
        self._published = False
        self._size_bytes = 0
        try:
            # The length, which is known last, is written over it.
            self._file.write(preamble.sealed(self._preamble_key, associated))
            self._writer = StreamWriter(self._file.write, content_key, associated)
        except BaseException:
            self.discard()
            raise

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Adds pieces."""
        for piece in pieces:
            self._writer.write(piece)
            self._size_bytes += len(piece)

    def publish(self) -> None:
        """Makes the file appear under its name."""
        self._writer.close()
        preamble = replace(self._preamble, size_bytes=self._size_bytes)
        self._file.write_at(0, preamble.sealed(self._preamble_key, self._associated))
        place = self._place
        make_folder(place.root.number, place.hour)
        with opened_folder(place.root.number, place.hour) as hour:
            make_folder(hour, place.owner)
            with opened_folder(hour, place.owner) as owner:
                os.rename(self._name, place.object_id, src_dir_fd=place.drafts.number, dst_dir_fd=owner)
        self._published = True

    def flush(self) -> None:
        """Waits until what has been written so far is on the disk; another thread may write meanwhile."""
        os.fdatasync(self._file.number)

    def discard(self) -> None:
        """Removes the file unless it was published."""
        if not self._published:
            with contextlib.suppress(OSError):
                os.unlink(self._name, dir_fd=self._place.drafts.number)

    def __del__(self) -> None:
        if hasattr(self, "_published"):
            self.discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


class LocalDraft:
    """A Draft in a file.

    Much is brought to the disk while it comes, so that at the end little is left to wait for.
    """

    def __init__(self, object_id: str, file: DraftFile, in_thread: InThread) -> None:
        self.object_id = object_id
        self._file = file
        self._in_thread = in_thread
        self._unflushed_bytes = 0
        self._flushing: asyncio.Task[None] | None = None

    async def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Encrypts and writes."""
        await self._in_thread(lambda: self._file.write(*pieces))
        self._unflushed_bytes += sum(map(len, pieces))
        if self._unflushed_bytes >= _FLUSH_BYTES and (self._flushing is None or self._flushing.done()):
            await self._flushed()
            self._unflushed_bytes = 0
            self._flushing = asyncio.create_task(self._in_thread(self._file.flush))

    async def commit(self) -> None:
        """Makes the object appear."""
        await self._flushed()
        await self._in_thread(self._file.publish)

    async def discard(self) -> None:
        """Removes the file unless it was committed."""
        try:
            with contextlib.suppress(ApiError):
                await self._flushed()
        finally:
            await self._in_thread(self._file.discard)

    async def _flushed(self) -> None:
        """Waits for the disk, which tells of a failure once."""
        if self._flushing:
            await asyncio.shield(self._flushing)
