"""Bytes of a resumable upload on their way into parts, objects of their own."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import completed, ended
from camserve_server.core.incoming import HEAD_BYTES, media_type_of
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.objects import Draft, ObjectStore, discard
from camserve_server.stores.pending_uploads import PendingUpload, PendingUploads

# What a crash of the server costs a sender at most: so many bytes, and of a slow one so much time.
_PART_BYTES = 16 * 1024 * 1024
_PART_S = 10.0
# One way to a thread and back for so much.
_PIECE_BYTES = 1024 * 1024
_PART_TYPE = "application/octet-stream"
_TOO_MUCH = "The upload has more bytes than it declared."
# The store did not say that it has not taken the part: then the part may be needed, and goes when it expires.
_REFUSED = frozenset({Reason.UPLOAD_OFFSET_CONFLICT, Reason.UPLOAD_NOT_FOUND, Reason.PARAM_INVALID})


class Complete:
    """In the place of `Appending` where all has come: takes no bytes."""

    async def append(self, data: bytes | memoryview) -> None:
        """Raises ApiError(PARAM_INVALID) for any."""
        if data:
            raise ApiError(Reason.PARAM_INVALID, _TOO_MUCH)


class Appending:
    """Takes bytes and keeps them part by part; leaving it keeps what has come, also of a caller who breaks off.

    A sender that stands still holds no memory for longer than a part may take.
    """

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
        self._kept = pending.offset
        self._come = pending.offset
        self._waiting = bytearray()
        self._since: float | None = None  # when the first byte came that is not kept
        self._draft: Draft | None = None
        self._draft_bytes = 0
        self._one_at_a_time = asyncio.Lock()
        self._timer: asyncio.Task[None] | None = None
        self._failed: ApiError | None = None

    async def append(self, data: bytes | memoryview) -> None:
        """Adds bytes.

        Raises ApiError: PARAM_INVALID for more than were declared, UPLOAD_OFFSET_CONFLICT when another caller was
        faster, SERVICE_OVERLOADED without memory for them, and as media_type_of once the first bytes tell what it is.
        """
        if self._failed:
            raise self._failed
        if self._come + len(data) > self._pending.declared.size_bytes:
            raise ApiError(Reason.PARAM_INVALID, _TOO_MUCH)
        if self._since is None:
            if not self._budget.try_take(_PIECE_BYTES, self._tenant):
                raise ApiError(Reason.SERVICE_OVERLOADED)
            self._since = self._clock.monotonic()
        self._come += len(data)
        self._waiting += data
        if self._kept == 0 and self._draft is None and len(self._waiting) >= HEAD_BYTES:
            await self._check_head()
        if len(self._waiting) >= _PIECE_BYTES:
            await completed(self._write_on())

    async def __aenter__(self) -> Self:
        """Returns the object itself."""
        self._timer = asyncio.create_task(self._keep_in_time())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keeps what has come; after an error of ours, gives up what was not kept by then.

        A sender that was waited for in vain has broken off.
        """
        refused = isinstance(error, ApiError) and error.reason is not Reason.TIMEOUT_EXCEEDED
        # As one piece of work: a caller may be canceled more than once.
        if error is None or refused:
            await completed(self._leave(keep=not refused))
        else:
            # Nobody is there to hear of a failure: what was not kept is sent again.
            with contextlib.suppress(ApiError):
                await completed(self._leave(keep=True))

    async def _check_head(self) -> None:
        declared = self._pending.declared
        try:
            media_type_of(self._waiting[:HEAD_BYTES], declared.media_type, declared.file_name)
        except ApiError:
            # As any image that is refused it is gone, unless another caller has begun it well meanwhile.
            now = await self._uploads.get(self._tenant, self._storage_id)
            if now and now.offset == 0:
                await self._uploads.delete(self._tenant, self._storage_id)
            raise

    async def _keep_in_time(self) -> None:
        while True:
            await asyncio.sleep(_PART_S / 10)
            if self._since is not None and self._clock.monotonic() - self._since >= _PART_S:
                try:
                    await completed(self._write_on(keep=True))
                except ApiError as error:
                    self._failed = error
                    return

    async def _leave(self, *, keep: bool) -> None:
        if self._timer:
            await ended([self._timer])
        # A failure keeps its frames, and those this.
        self._timer = None
        failed, self._failed = self._failed, None
        try:
            if keep and failed:
                raise failed
            if keep:
                await self._write_on(keep=True)
        finally:
            self._failed = failed = None
            await self._let_go()

    async def _write_on(self, *, keep: bool = False) -> None:
        """Writes what waits, and makes it a part when that is due."""
        async with self._one_at_a_time:
            if self._waiting:
                if self._draft is None:
                    self._draft = await self._objects.draft(
                        self._tenant, content_type=_PART_TYPE, expires_at=self._pending.expires_ms / 1000
                    )
                piece, self._waiting = self._waiting, bytearray()
                try:
                    await self._draft.write(piece)
                except ApiError as error:
                    # A part without these bytes is none, whoever leaves now, and why.
                    self._failed = error
                    raise
                self._draft_bytes += len(piece)
            if self._draft and (keep or self._draft_bytes >= _PART_BYTES):
                await self._keep(self._draft)

    async def _keep(self, draft: Draft) -> None:
        """Makes the draft a part, once it is on the disk."""
        try:
            await draft.commit()
            await self._objects.sync(self._tenant, [draft.object_id])
            self._kept = await self._uploads.append(
                self._tenant, self._storage_id, self._kept, draft.object_id, self._draft_bytes
            )
        except ApiError as error:
            if error.reason in _REFUSED:
                await discard(self._objects, self._tenant, [draft.object_id])
            raise
        finally:
            await draft.discard()
            self._draft, self._draft_bytes = None, 0
            if not self._waiting:
                self._forget_time()

    async def _let_go(self) -> None:
        async with self._one_at_a_time:
            if self._draft:
                await self._draft.discard()
            self._forget_time()

    def _forget_time(self) -> None:
        if self._since is not None:
            self._since = None
            self._budget.give(_PIECE_BYTES, self._tenant)
