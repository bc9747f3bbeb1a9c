"""PlaygroundService: the page on which people try the service, and the files that it loads."""

from __future__ import annotations

from pathlib import Path

from google.api import httpbody_pb2

from camserve.v1 import playground_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.call import Call

_PAGE = "index.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The page loads its own files, calls its own service and shows pictures that it made; nothing is inline, nothing is
# made of text (trusted types), nobody may frame it and no form leaves it.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    # The files belong together: an older one beside a newer one might not work.
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class PlaygroundServicer:
    """Hands out the files of `folder` that browsers load, read once."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            path.name: httpbody_pb2.HttpBody(content_type=_TYPES[path.suffix], data=path.read_bytes())
            for path in folder.iterdir()
            if path.suffix in _TYPES
        }

    async def get_playground(self, call: Call, request: pb.GetPlaygroundRequest) -> httpbody_pb2.HttpBody:
        """Returns the page."""
        return self._file(call, _PAGE)

    async def get_playground_file(self, call: Call, request: pb.GetPlaygroundFileRequest) -> httpbody_pb2.HttpBody:
        """Returns a file of the page."""
        return self._file(call, request.file)

    def _file(self, call: Call, name: str) -> httpbody_pb2.HttpBody:
        found = self._files.get(name)
        if found is None:
            raise ApiError(Reason.ROUTE_NOT_FOUND)
        call.headers |= _HEADERS
        return found
