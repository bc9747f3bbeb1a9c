"""UploadService: images that are stored once and used many times."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from google.protobuf import empty_pb2

from camserve.v1 import uploads_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import completed
from camserve_server.core.incoming import IncomingImage, empty_image
from camserve_server.core.resumable import Progress, ResumableUploads
from camserve_server.core.uploads import Presigning, UploadService
from camserve_server.rpc import tus
from camserve_server.rpc.answers import timestamp
from camserve_server.rpc.call import Call
from camserve_server.rpc.options import parse_md5
from camserve_server.rpc.receiving import Declared, Received, check_size, receive
from camserve_server.stores.pending_uploads import Declaration
from camserve_server.stores.uploads import Presigned, UploadRecord

# What an upload may be said to be before its first bytes tell; nothing said is any of them.
_MEDIA_TYPE = re.compile(r"(image/[A-Za-z0-9.+-]+|application/octet-stream)?")


class UploadServicer:
    """Converts between messages and the rules in core/uploads; `prefix` begins every link."""

    def __init__(
        self,
        uploads: UploadService,
        resumable: ResumableUploads,
        presigning: Presigning,
        *,
        prefix: str,
    ) -> None:
        self._uploads = uploads
        self._resumable = resumable
        self._presigning = presigning
        self._prefix = prefix

    async def upload_image(self, call: Call, requests: AsyncIterator[pb.UploadImageRequest]) -> pb.Upload:
        """Stores the image that is streamed."""
        tenant = call.identity.tenant
        first = await anext(requests, None)
        if first is None:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        async with room() as made:

            def begin(declared: Declared) -> IncomingImage:
                made.append(
                    self._uploads.incoming(tenant, declared.media_type, declared.file_name, has_md5=declared.has_md5)
                )
                return made[0]

            received = await receive(
                call,
                first,
                requests,
                begin,
                size_bytes=first.size_bytes if first.HasField("size_bytes") else None,
                content_md5=first.content_md5,
                limit_bytes=call.tenant_limits.max_image_bytes,
            )
            if received.declared.options:
                raise ApiError(Reason.PARAM_INVALID, "An upload has no options: leave them to the call that uses it.")
            await received.sink.end()
            answer: pb.Upload = await call.once(lambda: received.sink.sha256, lambda: self._keep(call, received))
            return answer

    async def presign_upload(self, call: Call, request: pb.PresignUploadRequest) -> pb.PresignUploadResponse:
        """Returns a link to upload to."""
        check_size(request.size_bytes, call.tenant_limits.max_image_bytes)
        md5 = request.content_md5 or None
        parse_md5(md5)
        link = await self._presigning.presign(
            call.identity.tenant, Presigned(request.media_type, request.size_bytes, md5), nonce=call.nonce
        )
        answer = pb.PresignUploadResponse(
            storage_id=link.storage_id,
            upload_url=link.url,
            method="PUT",
            headers=link.headers,
        )
        answer.expires_at.FromSeconds(int(link.expires_at))
        return answer

    async def start_upload(self, call: Call, request: pb.StartUploadRequest) -> pb.UploadProgress:
        """Begins a resumable upload."""
        if not request.HasField("size_bytes"):
            raise ApiError(Reason.UPLOAD_LENGTH_REQUIRED)
        if not request.size_bytes:
            raise empty_image()
        check_size(request.size_bytes, call.tenant_limits.max_image_bytes)
        parse_md5(request.content_md5)
        if not _MEDIA_TYPE.fullmatch(request.media_type):
            raise ApiError(Reason.MEDIA_UNSUPPORTED)
        declared = Declaration(
            request.size_bytes,
            request.media_type or None,
            request.file_name or None,
            request.content_md5 or None,
            tus.metadata(request.metadata) or None,
        )
        progress = await self._resumable.start(call.identity.tenant, declared, nonce=call.nonce)
        call.headers["location"] = f"{self._prefix}/v1/uploads/{progress.storage_id}"
        return _progress(call, progress)

    async def get_upload_protocol(self, call: Call, request: pb.GetUploadProtocolRequest) -> empty_pb2.Empty:
        """Says what of the tus protocol is spoken."""
        tus.protocol(call, call.tenant_limits.max_image_bytes)
        return empty_pb2.Empty()

    async def append_upload(self, call: Call, requests: AsyncIterator[pb.AppendUploadRequest]) -> pb.UploadProgress:
        """Adds bytes to a resumable upload."""
        tenant = call.identity.tenant
        first = await anext(requests, None)
        if first is None:
            raise ApiError(Reason.PARAM_INVALID, "The first message names the upload and the offset.")
        async with self._resumable.appending(tenant, first.storage_id, tus.offset(call, first)) as appending:
            await appending.append(first.body.data)
            async for message in requests:
                await appending.append(message.body.data)
        progress = await self._resumable.progress(tenant, first.storage_id)
        return _progress(call, progress)

    async def get_upload_progress(self, call: Call, request: pb.GetUploadProgressRequest) -> pb.UploadProgress:
        """Says how much of a resumable upload has come."""
        return _progress(call, await self._resumable.progress(call.identity.tenant, request.storage_id))

    async def get_upload(self, call: Call, request: pb.GetUploadRequest) -> pb.Upload:
        """Returns what is known of an upload."""
        return _upload(await self._uploads.get(call.identity.tenant, request.storage_id))

    async def delete_upload(self, call: Call, request: pb.DeleteUploadRequest) -> empty_pb2.Empty:
        """Removes an upload."""
        await self._resumable.delete(call.identity.tenant, request.storage_id)
        return empty_pb2.Empty()

    async def _keep(self, call: Call, received: Received[IncomingImage]) -> pb.Upload:
        md5 = parse_md5(received.declared.content_md5)
        record = await self._uploads.keep(call.identity.tenant, received.sink, md5=md5, nonce=call.nonce)
        return created(call, record, self._prefix)


@asynccontextmanager
async def room() -> AsyncIterator[list[IncomingImage]]:
    """Gives room for an image that may come, and lets go of it whatever happens."""
    made: list[IncomingImage] = []
    try:
        yield made
    finally:
        for incoming in made:
            await completed(incoming.discard())


def created(call: Call, record: UploadRecord, prefix: str) -> pb.Upload:
    """Returns what is known of an upload that has just come, and makes the answer say where it is."""
    call.headers["location"] = f"{prefix}/v1/uploads/{record.storage_id}"
    return _upload(record)


def _progress(call: Call, progress: Progress) -> pb.UploadProgress:
    tus.answer(call, progress)
    return pb.UploadProgress(
        storage_id=progress.storage_id,
        offset=progress.offset,
        size_bytes=progress.size_bytes,
        expires_at=timestamp(progress.expires_ms),
        upload=_upload(progress.record) if progress.record else None,
    )


def _upload(record: UploadRecord) -> pb.Upload:
    return pb.Upload(
        storage_id=record.storage_id,
        size_bytes=record.size_bytes,
        media_type=record.media_type,
        width=record.width,
        height=record.height,
        sha256=record.sha256,
        created_at=timestamp(record.created_ms),
        expires_at=timestamp(record.expires_ms),
    )
