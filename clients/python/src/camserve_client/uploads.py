"""Uploads: in one call where that is cheap, piece by piece where a broken connection would cost too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from camserve_client.calls import Calls
from camserve_client.contents import Content
from camserve_client.convert import result
from camserve_client.errors import CONNECTION_FAILED, CamserveError
from camserve_client.gen import methods
from camserve_client.gen import uploads_pb2 as pb
from camserve_client.results import Upload
from camserve_client.retry import Tries
from camserve_client.transport import Piece

# Up to this a second attempt from the beginning costs no more than asking how far the first one came.
WHOLE_BYTES = 4 << 20
_PIECE_BYTES = 8 << 20
# An attempt that moves no byte for so long is over, even if the connection does not say so.
_IDLE_S = 60.0
# Longer than the minute for which the edge still counts a connection that died without a word.
STALLED_AFTER_S = 150.0
# The slowest network that still counts as one: the deadline of an attempt, by which the service lets go of it.
SLOWEST_BYTES_S = 64 << 10
_OFFSET_CONFLICT = "upload.offset_conflict"
_NOT_FOUND = "upload.not_found"
UNTYPED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an upload has come: bytes on their way or there, and the id under which it can be resumed."""

    sent_bytes: int
    total_bytes: int
    storage_id: str | None = None


OnProgress = Callable[[Progress], None]


async def upload(
    calls: Calls,
    content: Content,
    *,
    media_type: str | None = None,
    content_md5: str | None = None,
    on_progress: OnProgress | None = None,
    resume: str | None = None,
    key: str | None = None,
    stalled_after_s: float = STALLED_AFTER_S,
) -> Upload:
    """Stores an image; raises CamserveError when it is refused, or when nothing moved for `stalled_after_s`.

    The same image under the same `key` is the same upload, which goes on where it was.
    """
    if key is not None and content_md5 is None:
        # Another image of that size under the key is refused so, instead of being taken for the first.
        content_md5 = await content.md5()
    if resume is None and content.size_bytes <= WHOLE_BYTES:
        return await _whole(calls, content, media_type, content_md5, on_progress, key)
    if resume is None:
        begun = await calls.unary(
            methods.START_UPLOAD,
            pb.StartUploadRequest(
                size_bytes=content.size_bytes,
                media_type=media_type,
                content_md5=content_md5,
            ),
            key=key,
        )
        storage_id, offset = begun.message.storage_id, 0
    else:
        progress = await _progress(calls, resume)
        if progress.size_bytes != content.size_bytes:
            raise ValueError(f"the upload is of {progress.size_bytes} bytes, the image has {content.size_bytes}")
        storage_id, offset = resume, progress.offset
    end = await _Pieces(calls, content, storage_id, on_progress).send(offset, stalled_after_s)
    if end.HasField("upload"):
        return result(Upload, end.upload)
    stored = await calls.unary(methods.GET_UPLOAD, pb.GetUploadRequest(storage_id=storage_id))
    return result(Upload, stored.message)


async def _whole(
    calls: Calls,
    content: Content,
    media_type: str | None,
    content_md5: str | None,
    on_progress: OnProgress | None,
    key: str | None,
) -> Upload:
    size_bytes = content.size_bytes

    def sent(offset: int) -> None:
        if on_progress:
            on_progress(Progress(offset, size_bytes))

    answer = await calls.upload(
        methods.UPLOAD_IMAGE,
        lambda: pb.UploadImageRequest(size_bytes=size_bytes, content_md5=content_md5),
        lambda: Piece(content.chunks(0, size_bytes, sent), size_bytes, media_type or UNTYPED),
        key=key,
        timeout_s=calls.timeout_s + size_bytes / SLOWEST_BYTES_S,
    )
    return result(Upload, answer.message)


@dataclass(slots=True)
class _Pieces:
    """Sends the rest of an upload, and goes on where it broke off."""

    calls: Calls
    content: Content
    storage_id: str
    on_progress: OnProgress | None

    async def send(self, offset: int, stalled_after_s: float) -> pb.UploadProgress:
        size_bytes = self.content.size_bytes
        tries = self.calls.retries.started(stalled_after_s)
        while True:
            try:
                reached = await self._append(offset, min(offset + _PIECE_BYTES, size_bytes))
            except CamserveError as error:
                if error.code != _OFFSET_CONFLICT:
                    await tries.pause_after(error)
                reached = await self._reached(tries)
                if reached.offset == offset and error.code == _OFFSET_CONFLICT:
                    # Somebody else adds bytes just now, such as our own connection that died unnoticed.
                    await tries.pause_after(CamserveError(CONNECTION_FAILED, error.message, status=error.status))
            else:
                if reached.offset <= offset < size_bytes:
                    await tries.pause_after(CamserveError(CONNECTION_FAILED, "The service took none of the bytes."))
            if reached.offset > offset:
                tries.restart()
            offset = reached.offset
            self._tell(offset)
            if offset == size_bytes:
                return reached

    async def _reached(self, tries: Tries) -> pb.UploadProgress:
        """Asks how far the upload has come, for as long as it may stand still and not only as long as a call."""
        while True:
            try:
                return await _progress(self.calls, self.storage_id)
            except CamserveError as error:
                await tries.pause_after(error)

    async def _append(self, offset: int, end: int) -> pb.UploadProgress:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_IDLE_S) as idle:

                def moved(sent: int) -> None:
                    if not idle.expired():
                        idle.reschedule(loop.time() + _IDLE_S)
                    self._tell(sent)

                answer = await self.calls.upload_once(
                    methods.APPEND_UPLOAD,
                    lambda: pb.AppendUploadRequest(storage_id=self.storage_id, offset=offset),
                    lambda: Piece(self.content.chunks(offset, end, moved), end - offset, UNTYPED),
                    self.calls.retries.started(_IDLE_S + (end - offset) / SLOWEST_BYTES_S),
                )
        except TimeoutError:
            raise CamserveError(CONNECTION_FAILED, f"The upload did not move for {_IDLE_S:g} s.") from None
        return answer.message

    def _tell(self, offset: int) -> None:
        if self.on_progress:
            self.on_progress(Progress(offset, self.content.size_bytes, self.storage_id))


async def _progress(calls: Calls, storage_id: str) -> pb.UploadProgress:
    try:
        answer = await calls.unary(methods.GET_UPLOAD_PROGRESS, pb.GetUploadProgressRequest(storage_id=storage_id))
    except CamserveError as error:
        if error.status != 404:
            raise
        # Over REST it is a HEAD, whose answer has no body to say so.
        raise CamserveError(_NOT_FOUND, "There is no such upload.", status=404, request_id=error.request_id) from None
    return answer.message
