"""ReferenceService: the REST surface as a document for programs and as a page for people."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from google.api import httpbody_pb2

from camserve.v1 import reference_pb2 as pb
from camserve_server.rpc.call import Call

_STYLE = re.compile(rb"<style>(.*?)</style>", re.DOTALL)
_COMMON = {"cache-control": "public, max-age=300", "x-content-type-options": "nosniff"}


class ReferenceServicer:
    """Hands out what `make docs` made in `folder`, read once."""

    def __init__(self, folder: Path) -> None:
        self._document = (folder / "openapi.json").read_bytes()
        self._page = (folder / "index.html").read_bytes()
        # Nothing but the styles that the page came with: no script, no request, no frame.
        digests = (base64.b64encode(hashlib.sha256(style).digest()).decode() for style in _STYLE.findall(self._page))
        styles = " ".join(f"'sha256-{digest}'" for digest in digests)
        self._policy = (
            f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    async def get_open_api(self, call: Call, request: pb.GetOpenApiRequest) -> httpbody_pb2.HttpBody:
        """Returns the document."""
        call.headers |= _COMMON
        return httpbody_pb2.HttpBody(content_type="application/json", data=self._document)

    async def get_reference_page(self, call: Call, request: pb.GetReferencePageRequest) -> httpbody_pb2.HttpBody:
        """Returns the page."""
        call.headers |= _COMMON | {"content-security-policy": self._policy, "referrer-policy": "no-referrer"}
        return httpbody_pb2.HttpBody(content_type="text/html; charset=utf-8", data=self._page)
