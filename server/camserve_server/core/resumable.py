"""Uploads that come piece by piece, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import derived_id, new_id
from camserve_server.base.tasks import completed, ended
from camserve_server.core.incoming import HEAD_BYTES, media_type_of
from camserve_server.core.uploads import UploadService, is_storage_id
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.objects import Draft, ObjectStore, discard
from camserve_server.stores.pending_uploads import Declaration, PendingUpload, PendingUploads
from camserve_server.stores.uploads import UploadRecord

_KEPT_S = 24 * 3600.0
# What a crash of the server costs a sender at most: so many bytes, and of a slow one so much time.
_PART_BYTES = 16 * 1024 * 1024
_PART_S = 10.0
# One way to a thread and back for so much.
_PIECE_BYTES = 1024 * 1024
_PART_TYPE = "application/octet-stream"


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
        self, pending: PendingUploads, uploads: UploadService, objects: ObjectStore, budget: ByteBudget, clock: Clock
    ) -> None:
        self._pending = pending
        self._budget = budget
        self._uploads = uploads
        self._objects = objects
        self._clock = clock
        uploads.on_missing = self._settled
        self._finishing: dict[tuple[str, str], asyncio.Task[UploadRecord]] = {}

    async def close(self) -> None:
        """Gives up images that are being made of their parts; whoever asks next makes them."""
        await ended(self._finishing.values())

    async def start(self, tenant: str, declared: Declaration, *, nonce: str | None = None) -> Progress:
        """Begins an upload; under a nonce a second time is the first one again."""
        storage_id = derived_id("img", nonce) if nonce else new_id("img")
        expires_ms = round((self._clock.now() + _KEPT_S) * 1000)
        await self._pending.begin(tenant, storage_id, declared, expires_ms=expires_ms)
        return Progress(storage_id, 0, declared.size_bytes, expires_ms)

    async def progress(self, tenant: str, storage_id: str) -> Progress:
        """Returns how much has come. Where that is all, the image is made first; raises as UploadService.keep does."""
        record = await self._uploads.find(tenant, storage_id)
        if record is None:
            pending = await self._find(tenant, storage_id)
            if pending is None:
                raise ApiError(Reason.UPLOAD_NOT_FOUND)
            if not pending.whole:
                declared = pending.declared
                return Progress(
                    storage_id, pending.offset, declared.size_bytes, pending.expires_ms, None, declared.tus_metadata
                )
            record = await self._finished(tenant, storage_id, pending)
        return Progress(storage_id, record.size_bytes, record.size_bytes, record.expires_ms, record)

    async def appending(self, tenant: str, storage_id: str, offset: int) -> Appending:
        """Returns what takes the bytes from `offset` on; raises ApiError(UPLOAD_OFFSET_CONFLICT) if others are next."""
        pending = await self._find(tenant, storage_id)
        if pending is None:
            record = await self._uploads.get(tenant, storage_id)
            raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT, offset=record.size_bytes)
        if offset != pending.offset:
            raise ApiError(Reason.UPLOAD_OFFSET_CONFLICT, offset=pending.offset)
        return Appending(self._pending, self._objects, self._budget, self._clock, tenant, storage_id, pending)

    async def delete(self, tenant: str, storage_id: str) -> None:
        """Removes an upload, complete or not; raises ApiError(UPLOAD_NOT_FOUND)."""
        pending = await self._find(tenant, storage_id)
        if pending:
            await self._forget(tenant, storage_id, pending)
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

    async def _finished(self, tenant: str, storage_id: str, pending: PendingUpload) -> UploadRecord:
        """Makes the image once, however many ask for it here, and also when they leave."""
        place = (tenant, storage_id)
        task = self._finishing.get(place)
        if task is None:
            task = self._finishing[place] = asyncio.create_task(self._finish(tenant, storage_id, pending))
            task.add_done_callback(lambda done: self._let_go(place, done))
        return await asyncio.shield(task)

    def _let_go(self, place: tuple[str, str], done: asyncio.Task[UploadRecord]) -> None:
        del self._finishing[place]
        if not done.cancelled():
            done.exception()  # it is whoever waits who raises it, and nobody may

    async def _finish(self, tenant: str, storage_id: str, pending: PendingUpload) -> UploadRecord:
        try:
            record = await self._made(tenant, storage_id, pending)
        except ApiError as error:
            known = await self._uploads.find(tenant, storage_id)
            if known is None:
                if error.reason is Reason.OBJECT_NOT_FOUND:
                    # Removed meanwhile; what is staged has not come.
                    raise ApiError(Reason.UPLOAD_NOT_FOUND) from None
                if error.entry.status < 500:
                    await self._refuse(tenant, storage_id, pending)
                raise
            record = known  # another process has made the image meanwhile
        with contextlib.suppress(ApiError):
            await self._pending.delete(tenant, storage_id)
            # What was staged stays: while it is there its link takes nothing else.
            await discard(self._objects, tenant, () if pending.declared.staged else pending.parts)
        return record

    async def _made(self, tenant: str, storage_id: str, pending: PendingUpload) -> UploadRecord:
        declared = pending.declared
        incoming = self._uploads.incoming(
            tenant, declared.media_type, declared.file_name, has_md5=declared.md5 is not None
        )
        try:
            for part in pending.parts:
                async with await self._objects.open(tenant, part) as stored:
                    async for chunk in stored.read(0, stored.size_bytes):
                        await incoming.append(chunk)
            if incoming.size != declared.size_bytes:
                raise ApiError(Reason.PARAM_INVALID, "The upload has other bytes than it declared.")
            await incoming.end()
            return await self._uploads.keep(tenant, incoming, md5=declared.md5_bytes, storage_id=storage_id)
        finally:
            await completed(incoming.discard())

    async def _refuse(self, tenant: str, storage_id: str, pending: PendingUpload) -> None:
        if pending.declared.staged:  # its link takes another one
            await discard(self._objects, tenant, pending.parts)
        else:
            await self._forget(tenant, storage_id, pending)

    async def _forget(self, tenant: str, storage_id: str, pending: PendingUpload) -> None:
        # In this order a crash in between leaves parts that nobody knows, which go when they expire.
        await self._pending.delete(tenant, storage_id)
        await discard(self._objects, tenant, pending.parts)


class Appending:
    """Takes bytes and keeps them part by part; leaving it keeps what has come, also when its caller is canceled."""

    def __init__(
        self,
        uploads: PendingUploads,
        objects: ObjectStore,
        budget: ByteBudget,
        clock: Clock,
        tenant: str,
        storage_id: str,
        pending: PendingUpload,
    ) -> None:
        self._uploads = uploads
        self._objects = objects
        self._budget = budget
        self._clock = clock
        self._tenant = tenant
        self._storage_id = storage_id
        self._pending = pending
        self._offset = pending.offset
        self._waiting = bytearray()
        self._draft: Draft | None = None
        self._draft_bytes = 0
        self._draft_since = 0.0

    async def append(self, data: bytes) -> None:
        """Adds bytes.

        Raises ApiError: PARAM_INVALID for more than were declared, UPLOAD_OFFSET_CONFLICT when another caller was
        faster, and as media_type_of once the first bytes tell what it is.
        """
        come = self._offset + self._draft_bytes + len(self._waiting) + len(data)
        if come > self._pending.declared.size_bytes:
            raise ApiError(Reason.PARAM_INVALID, "The upload has more bytes than it declared.")
        if not self._draft and not self._waiting:
            self._draft_since = self._clock.monotonic()
        begins = self._offset == 0 and not self._draft
        self._waiting += data
        if begins and len(self._waiting) >= HEAD_BYTES:
            await self._check_head()
        late = self._clock.monotonic() - self._draft_since >= _PART_S
        if len(self._waiting) >= _PIECE_BYTES or late:
            await self._write()
            if self._draft_bytes >= _PART_BYTES or late:
                await self._keep()

    async def __aenter__(self) -> Self:
        """Returns the object itself; raises ApiError(SERVICE_OVERLOADED) when there is no memory for its bytes."""
        if not self._budget.try_take(_PIECE_BYTES):
            raise ApiError(Reason.SERVICE_OVERLOADED)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps what has come; after an error of ours, gives up what was not kept by then."""
        try:
            await self._leave(error)
        finally:
            self._budget.give(_PIECE_BYTES)

    async def _leave(self, error: BaseException | None) -> None:
        if error is None:
            await completed(self._end())
        elif isinstance(error, ApiError):
            await completed(self._discard())
        else:
            # Nobody is there to hear of a failure: what was not kept is sent again.
            with contextlib.suppress(ApiError):
                await completed(self._end())

    async def _check_head(self) -> None:
        declared = self._pending.declared
        try:
            media_type_of(self._waiting[:HEAD_BYTES], declared.media_type, declared.file_name)
        except ApiError:
            # As any image that is refused it is gone.
            await self._uploads.delete(self._tenant, self._storage_id)
            raise

    async def _end(self) -> None:
        try:
            if self._waiting:
                await self._write()
            if self._draft:
                await self._keep()
        finally:
            await self._discard()

    async def _write(self) -> None:
        if self._draft is None:
            self._draft = await self._objects.draft(
                self._tenant, content_type=_PART_TYPE, expires_at=self._pending.expires_ms / 1000
            )
        piece, self._waiting = self._waiting, bytearray()
        await self._draft.write(piece)
        self._draft_bytes += len(piece)

    async def _keep(self) -> None:
        """Makes the draft a part, once it is on the disk."""
        draft, size_bytes = self._draft, self._draft_bytes
        if draft is None:
            return
        await draft.commit()
        try:
            await self._objects.sync(self._tenant, [draft.object_id])
            self._offset = await self._uploads.append(
                self._tenant, self._storage_id, self._offset, draft.object_id, size_bytes
            )
        except ApiError:
            await discard(self._objects, self._tenant, [draft.object_id])
            raise
        finally:
            self._draft, self._draft_bytes = None, 0

    async def _discard(self) -> None:
        if self._draft:
            await self._draft.discard()
