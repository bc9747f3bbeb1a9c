"""An image on its way into the store: checked, hashed and encrypted while it comes, in bounded memory."""

from __future__ import annotations

import asyncio
import hashlib

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.core.antivirus import Antivirus
from camserve_server.engine.buffers import ByteBudget
from camserve_server.engine.imaging import ImagingPool, Probed
from camserve_server.engine.peek import Peek
from camserve_server.engine.sniff import MEDIA_TYPES, check_declaration, sniff
from camserve_server.stores.objects import Draft, ObjectStore

# What goes to a thread at once; one such piece waits while others are written.
_PIECE_BYTES = 1024 * 1024
# So much stays as it came, as Envoy's messages of a little less than 1 MiB do; less is put together first.
_WHOLE_BYTES = _PIECE_BYTES // 2
# Where the budget has room so much waits, as fewer ways to a thread and back take less time.
_MOST_WAITING_BYTES = 4 * _PIECE_BYTES
# What a format is told by; a type that is not taken is refused when so much has come.
HEAD_BYTES = 4096

Piece = bytes | bytearray | memoryview


class IncomingImage:
    """Takes bytes in order and writes them on; whoever makes it calls `discard` in the end, kept or not.

    `media_type` and `file_name` are what the caller declared, `has_md5` says that an MD5 was declared too.
    """

    def __init__(
        self,
        tenant: str,
        objects: ObjectStore,
        imaging: ImagingPool,
        antivirus: Antivirus,
        budget: ByteBudget,
        *,
        expires_at: float,
        media_type: str | None,
        file_name: str | None,
        has_md5: bool,
    ) -> None:
        self._tenant = tenant
        self._objects = objects
        self._imaging = imaging
        self._inspection = antivirus.inspection()
        self.expires_at = expires_at
        """When the image goes, unix seconds: its time begins with its first byte."""
        self._declared = (media_type, file_name)
        self._budget = budget
        self._peek = Peek(budget, tenant)
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if has_md5 else None
        self._begun = bytearray()
        self._waiting: list[Piece] = []
        self._budgeted_bytes = 0
        self._taken = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._looking: asyncio.Future[None] | None = None
        self._draft: Draft | None = None
        self.size = 0
        self.media_type = ""
        """What the bytes are, once the first of them have come."""

    @property
    def sha256(self) -> bytes:
        """The digest of what came, once it has ended."""
        return self._sha256.digest()

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes; what went wrong with earlier ones is raised here."""
        self.size += len(data)
        # What can change is not kept: a bytearray is its maker's.
        if not isinstance(data, bytearray) and len(data) >= _WHOLE_BYTES and self._draft and not self._begun:
            await self._write_on(data)
            return
        self._begun += data
        if len(self._begun) >= (_PIECE_BYTES if self._draft else HEAD_BYTES):
            await self._write_begun()

    async def end(self) -> None:
        """Ends the image: what waits is written. Raises ApiError(IMAGE_SOURCE_REQUIRED) when nothing has come."""
        if not self.size:
            raise empty_image()
        if self._begun:
            await self._write_begun()
        if self._writing:
            await self._writing

    async def check(self, md5: bytes | None) -> Probed | None:
        """Returns what the header of an ended image says, None where its beginning does not tell.

        Raises ApiError: IMAGE_MD5_MISMATCH, and as Antivirus.check and ImagingPool.probe.
        """
        if md5 is not None and (self._md5 is None or self._md5.digest() != md5):
            raise ApiError(Reason.IMAGE_MD5_MISMATCH)
        await self._inspection.end()
        self._peek.finish()
        media_type, file_name = self._declared
        try:
            return await self._imaging.probe(
                self._peek.fd,
                self.size,
                held=self._peek.held,
                declared_media_type=media_type,
                file_name=file_name,
            )
        except ApiError as error:
            if self._peek.complete or error.reason is not Reason.IMAGE_DECODING_FAILED:
                raise
            return None
        finally:
            self._peek.close()

    async def commit(self) -> str:
        """Makes the object and returns its id; it is on the disk then. `discard` does not end what has begun."""
        draft, self._draft = self._draft, None
        if draft is None:
            raise RuntimeError("nothing was received")
        try:
            await draft.commit()
        except BaseException:
            await draft.discard()
            raise
        await self._objects.sync(self._tenant, [draft.object_id])
        return draft.object_id

    async def discard(self) -> None:
        """Lets go of everything but an object that is or will be committed."""
        if self._writing:
            await ended([self._writing])
        if self._looking:
            # No thread can be told to stop, and this one writes where `peek` must not be closed.
            await asyncio.wait([self._looking])
            self._looking.exception()  # what else went wrong was raised
        # Their failures keep their frames, and those this.
        self._writing = self._looking = None
        self._give_back(self._budgeted_bytes)
        self._peek.close()
        self._inspection.close()
        if self._draft:
            await self._draft.discard()

    async def _write_begun(self) -> None:
        piece, self._begun = self._begun, bytearray()
        await self._write_on(piece)

    async def _write_on(self, piece: Piece) -> None:
        """Has the piece written after those that wait; comes back once another one may come."""
        if self._draft is None:
            self.media_type = media_type_of(piece, *self._declared)
            self._draft = await self._objects.draft(
                self._tenant, content_type=self.media_type, expires_at=self.expires_at
            )
        while self._waiting and not self._may_wait(piece):
            self._taken.clear()
            await self._taken.wait()
        if self._writing and self._writing.done():
            await self._writing
            self._writing = None
        self._waiting.append(piece)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(self._draft))

    def _may_wait(self, piece: Piece) -> bool:
        """Whether a piece may wait beside others; those are written once what is written now has been."""
        waiting_bytes = sum(map(len, self._waiting)) + len(piece)
        # The other half is for what cannot do without.
        has_room = self._budget.taken_bytes + len(piece) <= self._budget.limit_bytes // 2
        if waiting_bytes > _MOST_WAITING_BYTES or not has_room or not self._budget.try_take(len(piece), self._tenant):
            return False
        self._budgeted_bytes += len(piece)
        return True

    async def _write(self, draft: Draft) -> None:
        try:
            while self._waiting:
                pieces, self._waiting = self._waiting, []
                budgeted_bytes = self._budgeted_bytes
                self._taken.set()
                await self._hand_out(draft, pieces)
                self._give_back(budgeted_bytes)
        finally:
            self._waiting = []
            self._taken.set()

    async def _hand_out(self, draft: Draft, pieces: list[Piece]) -> None:
        # All of them only read the pieces.
        self._looking = asyncio.get_running_loop().run_in_executor(None, self._look_at, pieces)
        others = [asyncio.create_task(draft.write(*pieces))]
        if self._inspection.asks:
            others.append(asyncio.create_task(self._inspect(pieces)))
        try:
            await asyncio.gather(asyncio.shield(self._looking), *others)
        finally:
            # Where one of them fails the others must not go on without anybody to end them.
            await ended(others)
            # A failure keeps this frame with the pieces, which must not keep the failure.
            others.clear()

    def _look_at(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            self._sha256.update(piece)
            if self._md5:
                self._md5.update(piece)
            self._peek.feed(piece)

    async def _inspect(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            await self._inspection.feed(piece)

    def _give_back(self, n_bytes: int) -> None:
        self._budgeted_bytes -= n_bytes
        self._budget.give(n_bytes, self._tenant)


def empty_image() -> ApiError:
    """Returns the refusal of an image that has no bytes."""
    return ApiError(Reason.IMAGE_SOURCE_REQUIRED, "The image is empty.")


def media_type_of(head: Piece, media_type: str | None, file_name: str | None) -> str:
    """Returns the media type of the image that begins with `head`, which its declared type and name must fit.

    Raises ApiError as sniff and check_declaration do.
    """
    kind = sniff(_Head(head))
    check_declaration(kind, media_type, file_name)
    return MEDIA_TYPES[kind.kind]


class _Head:
    """The beginning of a file."""

    def __init__(self, data: Piece) -> None:
        self._data = data

    def at(self, offset: int, n_bytes: int) -> bytes:
        return bytes(self._data[offset : offset + n_bytes])
