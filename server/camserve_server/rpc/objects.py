"""ObjectService: what a signed link leads to, and what comes by one."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from camserve.v1 import objects_pb2, uploads_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.incoming import IncomingImage
from camserve_server.core.links import Links
from camserve_server.core.uploads import Grant, UploadService
from camserve_server.rpc.call import Call
from camserve_server.rpc.options import parse_md5
from camserve_server.rpc.receiving import Declared, Received, receive
from camserve_server.rpc.uploads import created, room
from camserve_server.stores.objects import hour_of_id

_EXTENSIONS = {"image/png": "png", "application/x-npy": "npy"}


class ObjectServicer:
    """Streams stored objects, and stores presigned uploads; `prefix` begins every link."""

    def __init__(self, links: Links, uploads: UploadService, *, prefix: str) -> None:
        self._links = links
        self._uploads = uploads
        self._prefix = prefix

    async def download(self, call: Call, request: objects_pb2.DownloadRequest) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Yields the object's bytes; the headers say length, type and that no browser may guess another."""
        if hour_of_id(request.object_id) is None:
            raise ApiError(Reason.OBJECT_NOT_FOUND)
        # Objects carry no validator, so a condition on one is never met (RFC 9110 section 13.1.5).
        wanted = None if "if-range" in call.metadata else call.metadata.get("range")
        call.came_by_link_of(self._links.tenant(request.object_id, request.token))
        part = await self._links.open(call.tenant, request.object_id, wanted)
        async with part.stored as stored:
            extension = _EXTENSIONS.get(stored.content_type, "bin")
            call.headers |= {
                "accept-ranges": "bytes",
                "cache-control": "private, max-age=300",
                "content-disposition": f'inline; filename="{request.object_id}.{extension}"',
                "x-content-length": str(part.end - part.start),
                "x-content-type-options": "nosniff",
            }
            if part.partial:
                call.http_code = 206
                call.headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{stored.size_bytes}"
            if call.metadata.get("x-envoy-original-method") == "HEAD" or part.start == part.end:
                yield httpbody_pb2.HttpBody(content_type=stored.content_type)
                return
            async for data in stored.read(part.start, part.end):
                yield httpbody_pb2.HttpBody(content_type=stored.content_type, data=data)

    async def put_object(self, call: Call, requests: AsyncIterator[objects_pb2.PutObjectRequest]) -> uploads_pb2.Upload:
        """Stores the image of a presigned upload."""
        first = await anext(requests, None)
        if first is None:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        call.came_by_link_of(self._uploads.link_tenant(first.object_id, first.token))
        # The answer to a call with a key may be there already.
        grant = await self._uploads.granted(call.tenant, first.object_id, again=call.has_key)
        presigned = grant.presigned
        async with room() as made:

            def begin(declared: Declared) -> IncomingImage:
                _check_grant(declared, grant)
                made.append(self._uploads.incoming(grant.tenant, presigned.media_type, has_md5=declared.has_md5))
                return made[0]

            received = await receive(
                call,
                first,
                requests,
                begin,
                size_bytes=presigned.size_bytes,
                content_md5=presigned.md5,
                limit_bytes=presigned.size_bytes,
            )
            await received.sink.end()
            answer: uploads_pb2.Upload = await call.once(
                lambda: hashlib.sha256(grant.storage_id.encode() + received.sink.sha256).digest(),
                lambda: self._keep(call, grant, received),
            )
            return answer

    async def _keep(self, call: Call, grant: Grant, received: Received[IncomingImage]) -> uploads_pb2.Upload:
        record = await self._uploads.keep(
            grant.tenant,
            received.sink,
            md5=parse_md5(received.declared.content_md5),
            storage_id=grant.storage_id,
            nonce=call.nonce,
        )
        return created(call, record, self._prefix)


def _check_grant(declared: Declared, grant: Grant) -> None:
    """Refuses what a link is not for as soon as it is declared."""
    if declared.media_type not in (grant.presigned.media_type, "application/octet-stream", ""):
        raise ApiError(Reason.MEDIA_MISMATCH)
