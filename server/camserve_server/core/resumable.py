"""Uploads that come piece by piece, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import derived_id, new_id
from camserve_server.base.tasks import completed, ended
from camserve_server.core.appending import Appending, Complete
from camserve_server.core.uploads import UploadService, is_storage_id
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.objects import DirectLinks, ObjectStore, discard
from camserve_server.stores.pending_uploads import Declaration, PendingUpload, PendingUploads
from camserve_server.stores.uploads import UploadRecord

_log = structlog.get_logger("uploads")

_KEPT_S = 24 * 3600.0
# Of one tenant, so that it takes no more than its share of connections and memory.
_MOST_COMING = 32
_PARTS_WAIT_S = 1.0
# Of many GB an image takes longer to make than a call may.
_MADE_WITHIN_S = 6.0
_LOOK_S = 0.01


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of an upload has come; `record` is there once it is stored, `tus_metadata` until then."""

    storage_id: str
    offset: int
    size_bytes: int
    expires_ms: int
    record: UploadRecord | None = None
    tus_metadata: str | None = None


class ResumableUploads:
    """Keeps what has come as parts, objects of their own, and makes the image of them when all have come.

    Who goes on at an upload may be another process than who began it, and two may do so at once: bytes are added only
    where those before them end. Methods raise ApiError: UPLOAD_NOT_FOUND, STORE_UNAVAILABLE, UPSTREAM_FAILED.
    """

    def __init__(
        self,
        pending: PendingUploads,
        uploads: UploadService,
        objects: ObjectStore,
        direct: DirectLinks | None,
        budget: ByteBudget,
        clock: Clock,
    ) -> None:
        self._pending = pending
        self._budget = budget
        self._uploads = uploads
        self._objects = objects
        self._clock = clock
        uploads.on_missing = self._settled
        self._direct = direct
        self._finishing: dict[tuple[str, str], asyncio.Task[UploadRecord]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._coming: Counter[str] = Counter()

    async def close(self, within_s: float) -> None:
        """Waits for canceled callers, whose bytes are being kept, and gives up images that are being made of parts.

        Whoever asks next makes them.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._coming:
                    await asyncio.sleep(_LOOK_S)
        await ended(self._finishing.values())
        await ended(self._leaving)

    async def start(self, tenant: str, declared: Declaration, *, nonce: str | None = None) -> Progress:
        """Begins an upload; under a nonce a second time is the first one again."""
        storage_id = derived_id("img", nonce) if nonce else new_id("img")
        expires_ms = round((self._clock.now() + _KEPT_S) * 1000)
        await self._pending.begin(tenant, storage_id, declared, expires_ms=expires_ms)
        return Progress(storage_id, 0, declared.size_bytes, expires_ms)

    async def progress(self, tenant: str, storage_id: str) -> Progress:
        """Returns how much has come. Where that is all, the image is made first, or goes on being made after a while.

        Raises as UploadService.keep does.
        """
        pending = await self._find(tenant, storage_id)
        if pending:
            made = pending.whole and await self._made_soon(tenant, storage_id, pending)
            if not made:
                declared = pending.declared
                offset = declared.size_bytes if pending.whole else pending.offset
                return Progress(
                    storage_id, offset, declared.size_bytes, pending.expires_ms, None, declared.tus_metadata
                )
        record = await self._uploads.get(tenant, storage_id)
        return Progress(storage_id, record.size_bytes, record.size_bytes, record.expires_ms, record)

    @contextlib.asynccontextmanager
    async def appending(self, tenant: str, storage_id: str, offset: int) -> AsyncIterator[Appending | Complete]:
        """Gives what takes the bytes from `offset` on.

        Raises ApiError: UPLOAD_OFFSET_CONFLICT if others are next, SERVICE_OVERLOADED when too many of the tenant's
        uploads come at once.
        """
        pending = await self._find(tenant, storage_id)
        if pending is None:
            record = await self._uploads.get(tenant, storage_id)
            if offset != record.size_bytes:
                raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT, offset=record.size_bytes)
            yield Complete()
            return
        if pending.declared.staged:
            raise ApiError(Reason.UPLOAD_NOT_FOUND)
        if offset != pending.offset:
            raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT, offset=pending.offset)
        if self._coming[tenant] >= _MOST_COMING:
            raise ApiError(Reason.SERVICE_OVERLOADED)
        self._coming[tenant] += 1
        try:
            async with Appending(
                self._pending, self._objects, self._budget, self._clock, tenant, storage_id, pending
            ) as appending:
                yield appending
        except ApiError as error:
            known = await self._uploads.find(tenant, storage_id) if error.reason is Reason.UPLOAD_NOT_FOUND else None
            if known is None:
                raise
            # Another caller was faster, with all that was missing.
            raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT, offset=known.size_bytes) from None
        finally:
            self._coming[tenant] -= 1
            if not self._coming[tenant]:
                del self._coming[tenant]

    async def delete(self, tenant: str, storage_id: str) -> None:
        """Removes an upload, complete or not; raises ApiError(UPLOAD_NOT_FOUND)."""
        pending = await self._find(tenant, storage_id)
        if pending:
            parts = await self._pending.parts(tenant, storage_id)
            # In this order a crash in between leaves parts that nobody knows, which go when they expire.
            await self._pending.delete(tenant, storage_id)
            await self._done_with(tenant, pending, parts)
        if making := self._finishing.get((tenant, storage_id)):
            await asyncio.wait([making])
        if await self._uploads.find(tenant, storage_id):
            await self._uploads.delete(tenant, storage_id)
        elif pending is None:
            raise ApiError(Reason.UPLOAD_NOT_FOUND)

    async def _settled(self, tenant: str, storage_id: str) -> UploadRecord | None:
        """Makes the image of an upload of which all has come, so that whoever asks first finds it."""
        pending = await self._find(tenant, storage_id)
        return await self._finished(tenant, storage_id, pending) if pending and pending.whole else None

    async def _find(self, tenant: str, storage_id: str) -> PendingUpload | None:
        return await self._pending.get(tenant, storage_id) if is_storage_id(storage_id) else None

    async def _made_soon(self, tenant: str, storage_id: str, pending: PendingUpload) -> bool:
        """Makes the image; False where that takes longer than a caller should wait."""
        try:
            async with asyncio.timeout(_MADE_WITHIN_S):
                await self._finished(tenant, storage_id, pending)
        except TimeoutError:
            return False
        return True

    async def _finished(self, tenant: str, storage_id: str, pending: PendingUpload) -> UploadRecord:
        """Makes the image once, however many ask for it here, and also when they leave."""
        place = (tenant, storage_id)
        task = self._finishing.get(place)
        if task is None:
            task = self._finishing[place] = asyncio.create_task(self._finish(tenant, storage_id, pending))
            task.add_done_callback(lambda done: self._let_go(place, done))
        try:
            return await asyncio.shield(task)
        finally:
            # A failure keeps this frame, which must not keep the failure.
            del task

    def _let_go(self, place: tuple[str, str], done: asyncio.Task[UploadRecord]) -> None:
        del self._finishing[place]
        if not done.cancelled():
            done.exception()  # it is whoever waits who raises it, and nobody may

    async def _finish(self, tenant: str, storage_id: str, pending: PendingUpload) -> UploadRecord:
        parts = await self._pending.parts(tenant, storage_id)
        if not parts:  # made or removed meanwhile, by another process
            if known := await self._uploads.find(tenant, storage_id):
                return known
            raise ApiError(Reason.UPLOAD_NOT_FOUND)
        try:
            record = await self._made(tenant, storage_id, pending.declared, parts)
        except ApiError as error:
            known = await self._uploads.find(tenant, storage_id)
            if known is None:
                if await self._find(tenant, storage_id) is None:
                    # Deleted meanwhile, whatever that made of its parts.
                    raise ApiError(Reason.UPLOAD_NOT_FOUND) from None
                if error.reason is Reason.OBJECT_NOT_FOUND:
                    # What is staged has not come.
                    missing = Reason.UPLOAD_NOT_FOUND if pending.declared.staged else Reason.UPSTREAM_FAILED
                    raise ApiError(missing) from None
                if error.entry.status < 500:
                    await self._refuse(tenant, storage_id, pending, parts)
                raise
            record = known  # another process has made the image meanwhile
        await self._done_with(tenant, pending, parts)
        return record

    async def _made(self, tenant: str, storage_id: str, declared: Declaration, parts: Sequence[str]) -> UploadRecord:
        incoming = self._uploads.incoming(
            tenant, declared.media_type, declared.file_name, has_md5=declared.md5 is not None
        )
        try:
            for part in parts:
                async with await self._objects.open(tenant, part) as stored:
                    async for chunk in stored.read(0, stored.size_bytes):
                        await incoming.append(chunk)
            if incoming.size != declared.size_bytes:
                raise ApiError(Reason.PARAM_INVALID, "The upload has other bytes than it declared.")
            await incoming.end()
            return await self._uploads.keep(
                tenant, incoming, md5=declared.md5_bytes, storage_id=storage_id, pending=True
            )
        finally:
            await completed(incoming.discard())

    async def _refuse(self, tenant: str, storage_id: str, pending: PendingUpload, parts: Sequence[str]) -> None:
        if pending.declared.staged:  # its link takes another one
            await discard(self._objects, tenant, parts)
            if await self._find(tenant, storage_id) is None:
                # Deleted meanwhile: what that has put there, so that the link takes none, may be gone now.
                await self._done_with(tenant, pending, parts)
        else:
            await self._pending.delete(tenant, storage_id)
            await self._done_with(tenant, pending, parts)

    async def _done_with(self, tenant: str, pending: PendingUpload, parts: Sequence[str]) -> None:
        """Removes parts, many of them after the caller has its answer; where that fails they go when they expire."""
        if not parts:
            return
        if pending.declared.staged and self._direct:
            task = asyncio.create_task(self._direct.spend(tenant, parts[0], keep_until=pending.expires_ms / 1000))
        else:
            task = asyncio.create_task(discard(self._objects, tenant, parts))
        self._leaving.add(task)
        task.add_done_callback(self._left)
        await asyncio.wait([task], timeout=_PARTS_WAIT_S)

    def _left(self, task: asyncio.Task[None]) -> None:
        self._leaving.discard(task)
        if not task.cancelled() and (error := task.exception()):
            _log.warning("parts stay until they expire", cause=repr(error))
