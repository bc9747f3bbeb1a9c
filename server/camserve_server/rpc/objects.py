"""ObjectService: what a signed link leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.api import httpbody_pb2

from camserve.v1 import objects_pb2
from camserve_server.core.links import Links
from camserve_server.rpc.call import Call

_EXTENSIONS = {"image/png": "png", "application/x-npy": "npy"}


class ObjectServicer:
    """Streams stored objects."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def download(self, call: Call, request: objects_pb2.DownloadRequest) -> AsyncIterator[httpbody_pb2.HttpBody]:
        """Yields the object's bytes; the headers say length, type and that no browser may guess another."""
        part = await self._links.open(request.object_id, request.token, call.metadata.get("range"))
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
