"""The object store of one machine: encrypted files, one folder for each hour of expiry.

An object lies at `<root>/<hour>/<tenant hash>/<object id>`, all of it known from the id and the tenant, so
there is no index and the janitor drops whole folders of past hours. An object cannot be opened after the
second at which it expires; its file goes at the first round of the janitor after that hour has ended.
Drafts are written in `<root>/drafts` and renamed; a crash leaves nothing else behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.aead import DamagedError, RangeReader
from camserve_server.stores.keyring import KeyRing, MasterKey
from camserve_server.stores.local_drafts import DraftFile, InThread, LocalDraft, Place
from camserve_server.stores.local_files import FOLDER_FLAGS, File, make_folder, opened_folder
from camserve_server.stores.objects import HOUR_S, Draft, new_object_id, place_of
from camserve_server.stores.preamble import MAX_PREAMBLE_BYTES, Preamble

_DRAFTS = "drafts"
_DRAFT_LIFETIME_S = 3600.0
_REMEMBERED = 10_000
# Without O_NONBLOCK a FIFO in the place of an object would hold the thread.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_Result = TypeVar("_Result")


class LocalObjects:
    """An ObjectStore on a folder that all processes of the stack share.

    Disk and cipher work runs on `threads` threads of the store's own; a put, an open and each chunk of a
    read cost one change of thread. Files have mode 0600 and folders 0700; below `root` no symbolic link is
    followed.
    """

    def __init__(self, root: Path, ring: KeyRing, *, clock: Clock, threads: int = 4) -> None:
        self._ring = ring
        self._clock = clock
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The root itself may be a link, by which an operator puts the objects on another disk.
        self._root = File(os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        make_folder(self._root.number, _DRAFTS)
        self._drafts = File(os.open(_DRAFTS, FOLDER_FLAGS, dir_fd=self._root.number))
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="objects")
        self._synced: set[tuple[str, str]] = set()

    async def put(self, tenant: str, data: bytes | memoryview, *, content_type: str, expires_at: float) -> str:
        """Stores `data` as a file that appears whole or not at all and returns its new object id.

        Nothing is synced: a crash of the process loses nothing, but a loss of power may lose the object, or
        leave a file that no longer opens.
        """
        object_id = new_object_id(expires_at)

        def write() -> None:
            with self._begin(tenant, object_id, content_type, expires_at) as draft:
                draft.write(data)
                draft.publish()

        await self._in_thread(write)
        return object_id

    async def draft(self, tenant: str, *, content_type: str, expires_at: float) -> Draft:
        """Begins a file that appears whole, when it is committed, or not at all."""
        object_id = new_object_id(expires_at)
        file = await self._in_thread(lambda: self._begin(tenant, object_id, content_type, expires_at))
        return LocalDraft(object_id, file, self._in_thread)

    async def sync(self, tenant: str, object_ids: Sequence[str]) -> None:
        """Syncs the files, several at once, and then the folders that lead to them, each once.

        A folder above the last one changes only where a new one comes into it.
        """
        if not object_ids:
            return
        *others, last = object_ids
        await asyncio.gather(*(self._in_thread(partial(self._sync_file, tenant, object_id)) for object_id in others))

        def finish() -> None:
            self._sync_file(tenant, last)
            self._sync_folders({place_of(tenant, object_id) for object_id in object_ids})

        await self._in_thread(finish)

    async def open(self, tenant: str, object_id: str) -> LocalObject:
        """Opens an object once its preamble has proved to be authentic and not expired."""
        return await self._in_thread(lambda: self._open(tenant, object_id))

    async def delete(self, tenant: str, object_id: str) -> None:
        """Unlinks the object's file."""
        await self._in_thread(lambda: self._unlink(tenant, object_id))

    async def check(self) -> None:
        """Looks whether the folder is there, is ours to write and has room."""
        await self._in_thread(self._check)

    async def remove_expired(self) -> int:
        """Removes the folders of past hours, and drafts of an hour ago that nobody writes any more."""
        return await self._in_thread(self._remove_expired)

    async def close(self) -> None:
        """Waits for running work and ends the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _upstream_failed, work)

    def _keys(self, key: MasterKey) -> tuple[bytes, bytes]:
        return self._ring.subkey(key, "object preamble"), self._ring.subkey(key, "object content")

    def _check(self) -> None:
        number = self._drafts.number
        if not os.access(".", os.W_OK | os.X_OK, dir_fd=number) or not os.fstatvfs(number).f_bavail:
            raise OSError("objects cannot be stored")

    def _begin(self, tenant: str, object_id: str, content_type: str, expires_at: float) -> DraftFile:
        key = self._ring.primary()
        preamble = Preamble(key.id_bytes, expires_at, content_type)
        place = Place(self._root, self._drafts, *place_of(tenant, object_id), object_id)
        return DraftFile(place, preamble, self._keys(key), preamble.associated(tenant, object_id))

    def _sync_file(self, tenant: str, object_id: str) -> None:
        with self._owner_folder(tenant, object_id) as folder:
            file = File(os.open(object_id, _READ_FLAGS, dir_fd=folder))
        os.fsync(file.number)

    def _sync_folders(self, paths: set[tuple[str, str]]) -> None:
        new = paths - self._synced
        for hour, owner in paths:
            with opened_folder(self._root.number, hour) as hour_folder:
                with opened_folder(hour_folder, owner) as folder:
                    os.fsync(folder)
                if (hour, owner) in new:
                    os.fsync(hour_folder)
        if new:
            os.fsync(self._root.number)
        if len(self._synced) >= _REMEMBERED:
            self._synced.clear()
        self._synced |= new

    def _open(self, tenant: str, object_id: str) -> LocalObject:
        with self._owner_folder(tenant, object_id) as folder:
            file = File(os.open(object_id, _READ_FLAGS, dir_fd=folder))
        preamble, seal = Preamble.parse(file.read_at(0, MAX_PREAMBLE_BYTES))
        key = self._ring.get(preamble.key_id)
        if key is None:
            raise DamagedError("the object's key is not in the ring")
        preamble_key, content_key = self._keys(key)
        associated = preamble.associated(tenant, object_id)
        preamble.check(preamble_key, associated, seal)
        if preamble.expires_at <= self._clock.now():
            raise ApiError(Reason.OBJECT_NOT_FOUND)
        begin = preamble.stored_bytes
        reader = RangeReader(
            lambda offset, length: file.read_at(begin + offset, length),
            os.fstat(file.number).st_size - begin,
            content_key,
            associated,
        )
        if reader.size_bytes != preamble.size_bytes:
            raise DamagedError("the object's file has another length")
        return LocalObject(preamble, reader, self._in_thread)

    def _unlink(self, tenant: str, object_id: str) -> None:
        with contextlib.suppress(ApiError), self._owner_folder(tenant, object_id) as folder:
            os.unlink(object_id, dir_fd=folder)

    @contextlib.contextmanager
    def _owner_folder(self, tenant: str, object_id: str) -> Iterator[int]:
        hour, owner = place_of(tenant, object_id)
        try:
            with opened_folder(self._root.number, hour) as hour_folder, opened_folder(hour_folder, owner) as folder:
                yield folder
        except FileNotFoundError as error:
            raise ApiError(Reason.OBJECT_NOT_FOUND) from error

    def _remove_expired(self) -> int:
        removed = 0
        now = self._clock.now()
        with os.scandir(self._root.number) as entries:
            past = [
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False)
                and entry.name.isdecimal()
                and (int(entry.name) + 1) * HOUR_S <= now
            ]
        for name in past:
            for _, folders, files, number in os.fwalk(name, topdown=False, dir_fd=self._root.number):
                removed += sum(_remove(os.unlink, file, number) for file in files)
                for folder in folders:
                    _remove(os.rmdir, folder, number)
            _remove(os.rmdir, name, self._root.number)
        for name in os.listdir(self._drafts.number):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._drafts.number, follow_symlinks=False)
                if status.st_mtime + _DRAFT_LIFETIME_S <= now and not _is_written(name, self._drafts.number):
                    os.unlink(name, dir_fd=self._drafts.number)
        return removed


class LocalObject:
    """A StoredObject on an open file: deletion and expiry do not disturb a reader that has begun."""

    def __init__(
        self,
        preamble: Preamble,
        reader: RangeReader,
        in_thread: InThread,
    ) -> None:
        self.size_bytes = preamble.size_bytes
        self.content_type = preamble.content_type
        self.expires_at = preamble.expires_at
        self._reader: RangeReader | None = reader
        self._in_thread = in_thread

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yields the range as decrypted chunks of one segment or less, each read when it is asked for."""
        reader = self._reader
        if reader is None or not 0 <= start <= end <= self.size_bytes:
            raise ValueError("the range is outside the object, or the object is closed")
        while start < end:
            chunk = await self._in_thread(partial(reader.chunk, start, end))
            yield chunk
            start += len(chunk)

    async def close(self) -> None:
        """Lets go of the file; its descriptor closes when no thread reads from it any more."""
        self._reader = None

    async def __aenter__(self) -> Self:
        """Returns the object itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the object."""
        await self.close()


def _remove(remove: Callable[..., None], name: str, folder: int) -> bool:
    # What is gone already, another process's janitor has removed at the same time.
    try:
        remove(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        os.unlink(name, dir_fd=folder)
    return True


def _is_written(name: str, folder: int) -> bool:
    """Whether somebody has the draft open; its lock ends with its writer."""
    try:
        file = File(os.open(name, _READ_FLAGS, dir_fd=folder))
        fcntl.flock(file.number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no file of ours
        return False
    return False


def _upstream_failed(work: Callable[[], _Result]) -> _Result:
    try:
        return work()
    except (OSError, DamagedError) as error:
        raise ApiError(Reason.UPSTREAM_FAILED) from error
