"""The way of an upload into the server, its bytes only counted: `python -m benchmarks.receiver PORT`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from benchmarks.counter import serve
from camserve.v1 import uploads_pb2
from camserve_server.base.audit_log import AuditLog
from camserve_server.rpc.adapter import bind
from camserve_server.rpc.call import Call
from camserve_server.rpc.interceptors.errors import errors
from camserve_server.rpc.interceptors.headers import headers
from camserve_server.rpc.interceptors.parse import parse
from camserve_server.rpc.interceptors.telemetry import telemetry
from camserve_server.rpc.interceptors.validate import validate
from camserve_server.rpc.receiving import receive

_LIMIT_BYTES = 1 << 40


class _Count:
    """Takes bytes and keeps none."""

    size = 0

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        self.size += len(data)


class _Uploads:
    """Receives images as the servicer of the server does."""

    async def upload_image(
        self, call: Call, requests: AsyncIterator[uploads_pb2.UploadImageRequest]
    ) -> uploads_pb2.Upload:
        first = await anext(requests)
        received = await receive(
            call,
            first,
            requests,
            lambda _: _Count(),
            size_bytes=first.size_bytes,
            content_md5=None,
            limit_bytes=_LIMIT_BYTES,
        )
        return uploads_pb2.Upload(size_bytes=received.sink.size)

    def __getattr__(self, name: str) -> object:
        """The other methods are not called."""
        return self.upload_image


if __name__ == "__main__":
    service = uploads_pb2.DESCRIPTOR.services_by_name["UploadService"]
    with tempfile.TemporaryDirectory() as folder:
        chain = (telemetry(AuditLog(Path(folder) / "audit.log")), errors, headers, parse, validate)
        handler = bind(service, _Uploads(), chain)
        uvloop.run(serve(int(sys.argv[1]), lambda server: server.add_generic_rpc_handlers((handler,))))
