"""Any object store behind breakers: while it keeps failing, nobody waits for it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from typing import Self

from camserve_server.base.breaker import Breaker, CircuitState, Turn
from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import store_timed
from camserve_server.stores.aead import DamagedError
from camserve_server.stores.objects import Draft, ObjectStore, StoredObject


class GuardedObjects:
    """An ObjectStore that raises ApiError(CIRCUIT_OPEN) while the one within keeps failing.

    Reads and writes have a breaker each: a full disk is still read. What has begun is never refused.
    """

    def __init__(self, objects: ObjectStore, clock: Clock) -> None:
        self._objects = objects
        self._reads = Breaker("objects", "read", monotonic=clock.monotonic)
        self._writes = Breaker("objects", "write", monotonic=clock.monotonic)

    async def put(self, tenant: str, data: bytes | memoryview, *, content_type: str, expires_at: float) -> str:
        """Stores `data` and returns its new object id."""
        with _guard(self._writes), _timed("put"):
            return await self._objects.put(tenant, data, content_type=content_type, expires_at=expires_at)

    async def draft(self, tenant: str, *, content_type: str, expires_at: float) -> Draft:
        """Begins an object of unknown length."""
        with _guard(self._writes):
            draft = await self._objects.draft(tenant, content_type=content_type, expires_at=expires_at)
        return GuardedDraft(draft, self._writes)

    async def sync(self, tenant: str, object_ids: Sequence[str]) -> None:
        """Waits until these objects would survive a loss of power."""
        with _guard(self._writes, under_way=True), _timed("sync"):
            await self._objects.sync(tenant, object_ids)

    async def open(self, tenant: str, object_id: str) -> StoredObject:
        """Opens an object."""
        with _guard(self._reads), _timed("open"):
            return GuardedObject(await self._objects.open(tenant, object_id), self._reads)

    async def delete(self, tenant: str, object_id: str) -> None:
        """Deletes an object."""
        with _guard(self._writes), _timed("delete"):
            await self._objects.delete(tenant, object_id)

    async def check(self) -> None:
        """Returns when objects can be read and written; after a pause it is the call that tries."""
        with _guard(self._reads):
            await self._objects.check()
        if self._writes.state is not CircuitState.CLOSED:
            raise self._writes.refusal()

    async def remove_expired(self) -> int:
        """Removes what has expired; nobody waits for that, so that it is always tried."""
        return await self._objects.remove_expired()

    async def close(self) -> None:
        """Lets go of threads and connections."""
        await self._objects.close()


class GuardedDraft:
    """A Draft whose failures count."""

    def __init__(self, draft: Draft, breaker: Breaker) -> None:
        self._draft = draft
        self._breaker = breaker

    @property
    def object_id(self) -> str:
        """The id that the object will have."""
        return self._draft.object_id

    async def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Adds pieces."""
        with _guard(self._breaker, under_way=True), _timed("write"):
            await self._draft.write(*pieces)

    async def commit(self) -> None:
        """Makes the object appear."""
        with _guard(self._breaker, under_way=True), _timed("commit"):
            await self._draft.commit()

    async def discard(self) -> None:
        """Gives it up."""
        await self._draft.discard()


class GuardedObject:
    """A StoredObject whose failures count."""

    def __init__(self, stored: StoredObject, breaker: Breaker) -> None:
        self.size_bytes = stored.size_bytes
        self.content_type = stored.content_type
        self.expires_at = stored.expires_at
        self._stored = stored
        self._breaker = breaker

    async def read(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """Yields the range in chunks; how slowly they are taken is no affair of the store."""
        async with aclosing(self._stored.read(start, end)) as chunks:
            while True:
                with _guard(self._breaker, under_way=True), _timed("read"):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk

    async def close(self) -> None:
        """Lets go of the object."""
        await self._stored.close()

    async def __aenter__(self) -> Self:
        """Returns the object itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Closes the object."""
        await self.close()


def _guard(breaker: Breaker, *, under_way: bool = False) -> AbstractContextManager[Turn]:
    return breaker.guard(_blame, under_way=under_way)


def _timed(operation: str) -> AbstractContextManager[None]:
    return store_timed("objects", operation, _blame)


def _blame(error: Exception) -> bool | None:
    if not isinstance(error, ApiError) or error.reason is Reason.SERVICE_OVERLOADED:
        return None
    # One damaged object, asked for again and again, says nothing about the others.
    return error.reason is Reason.UPSTREAM_FAILED and not isinstance(error.__cause__, DamagedError)
