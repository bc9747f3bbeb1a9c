"""Objects: bytes that a tenant owns under an id until they expire."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Protocol, Self

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import ALPHABET, base62, new_id

_OBJECT_ID = re.compile(r"obj_[0-9A-Za-z]{22}([0-9A-Za-z]{5})")
HOUR_S = 3600


class StoredObject(Protocol):
    """An object opened for reading; `close` (or `async with`) lets go of it."""

    @property
    def size_bytes(self) -> int:
        """The number of bytes that were put."""

    @property
    def content_type(self) -> str:
        """The media type that was put."""

    @property
    def expires_at(self) -> float:
        """When the object ceases to exist, in unix seconds."""

    def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yields the bytes [start, end) in chunks of at most 1 MiB.

        Raises ValueError unless 0 <= start <= end <= size_bytes, ApiError(UPSTREAM_FAILED) where the stored bytes
        cannot be read or are not what was put, and ApiError(OBJECT_NOT_FOUND) where the object was deleted since it was
        opened and the store does not keep it; every chunk yielded before that is authentic.
        """

    async def close(self) -> None:
        """Ends the use of the object; reads that are under way end first. May be called again."""

    async def __aenter__(self) -> Self:
        """Returns the object itself."""

    async def __aexit__(self, *_: object) -> None:
        """Closes the object."""


class Draft(Protocol):
    """An object that is being written: it appears whole with `commit`, and never after `discard`."""

    @property
    def object_id(self) -> str:
        """The id that the object will have."""

    async def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Adds pieces in their order; the caller leaves them as they are until this returns."""

    async def commit(self) -> None:
        """Makes the object appear. After a loss of power it is whole or absent, until it is synced."""

    async def discard(self) -> None:
        """Gives it up; what was committed stays. May be called again."""


class ObjectStore(Protocol):
    """Where objects are kept; failures of the disk or the service are ApiError(UPSTREAM_FAILED).

    While they go on, what would begin is refused with ApiError(CIRCUIT_OPEN), see guarded_objects.
    """

    async def put(self, tenant: str, data: bytes | memoryview, *, content_type: str, expires_at: float) -> str:
        """Stores `data` and returns its new object id.

        It survives a crash of the process. After a loss of power it is whole or absent, until `sync`; that is right
        for what can be computed again, such as heatmaps.
        """

    async def draft(self, tenant: str, *, content_type: str, expires_at: float) -> Draft:
        """Begins an object of unknown length, in bounded memory; whoever begins it commits or discards it.

        What a crash leaves of it goes like what expired.
        """

    async def sync(self, tenant: str, object_ids: Sequence[str]) -> None:
        """Waits until these objects would survive a loss of power; many at once cost little more than one."""

    async def open(self, tenant: str, object_id: str) -> StoredObject:
        """Opens an object.

        Raises ApiError(OBJECT_NOT_FOUND) alike for ids that are malformed, unknown, expired or another
        tenant's.
        """

    async def delete(self, tenant: str, object_id: str) -> None:
        """Deletes an object; an id that the tenant does not have is no error."""

    async def check(self) -> None:
        """Returns when objects can be stored, as far as can be told without storing one."""

    async def remove_expired(self) -> int:
        """Removes what has expired and what crashed writers left behind; returns the number of objects."""

    async def close(self) -> None:
        """Lets go of threads and connections."""


class Budget(Protocol):
    """Memory that is set aside, in bytes."""

    def try_take(self, n_bytes: int, tenant: str = "") -> bool:
        """Takes so much for a tenant if it is there."""

    def give(self, n_bytes: int, tenant: str = "") -> None:
        """Gives back what was taken."""


class DirectLinks(Protocol):
    """Links that lead to where objects are kept, and not through the edge; times are unix seconds."""

    def download(self, tenant: str, object_id: str, *, expires_at: float) -> str:
        """Returns a link to read an object by."""

    def upload(
        self, tenant: str, object_id: str, headers: Mapping[str, str], *, keep_until: float, expires_at: float
    ) -> tuple[str, dict[str, str]]:
        """Returns a link by which an object comes once and is kept, and all headers that must come with its bytes.

        `headers` are those that say what the bytes must be: length, type and MD5.
        """

    async def spend(self, tenant: str, object_id: str, *, keep_until: float) -> None:
        """Puts nothing in the place of what came by a link, or would come, so that the link takes nothing more."""

    def upload_again(self, tenant: str, object_id: str, headers: Mapping[str, str], *, expires_at: float) -> str:
        """Returns such a link again, to the same object with the same headers."""


async def read_whole(store: ObjectStore, tenant: str, object_id: str) -> bytes:
    """Returns all bytes of an object; raises what opening and reading it raise."""
    async with await store.open(tenant, object_id) as stored:
        return b"".join([chunk async for chunk in stored.read(0, stored.size_bytes)])


async def discard(store: ObjectStore, tenant: str, object_ids: Iterable[str]) -> None:
    """Deletes objects that nobody needs; where that fails they go when they expire."""
    for object_id in object_ids:
        with contextlib.suppress(ApiError):
            await store.delete(tenant, object_id)


def new_object_id(expires_at: float) -> str:
    """Returns `obj_`, 128 random bits as 22 base62 digits, and the hour of expiry as 5 base62 digits.

    The hour in the id lets a store keep all objects of one hour together and remove them without an index;
    it says no more than the link's expiry does. `expires_at` is unix time in seconds.
    """
    return new_id("obj") + base62(int(expires_at // HOUR_S), 5)


def hour_of_id(object_id: str) -> int | None:
    """Returns the hour of expiry (since 1970) that an object id names, or None when it is no object id."""
    match = _OBJECT_ID.fullmatch(object_id)
    if match is None:
        return None
    hour = 0
    for digit in match[1]:
        hour = hour * 62 + ALPHABET.index(digit)
    return hour


def place_of(tenant: str, object_id: str) -> tuple[str, str]:
    """Returns the names of the folders that hold an object: its hour of expiry, and a hash of its tenant.

    Raises ApiError(OBJECT_NOT_FOUND) for what is no object id.
    """
    hour = hour_of_id(object_id)
    if hour is None:
        raise ApiError(Reason.OBJECT_NOT_FOUND)
    # Decimal, because two base62 hours can be one name on a file system that ignores case.
    return str(hour), hashlib.sha256(tenant.encode()).hexdigest()[:32]
