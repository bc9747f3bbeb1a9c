"""A bare grpc.aio server that counts the bytes of a stream and keeps none: `python -m benchmarks.counter PORT`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import uvloop

from camserve.v1 import uploads_pb2, uploads_pb2_grpc


class Counter(uploads_pb2_grpc.UploadServiceServicer):
    """Answers how many bytes came."""

    async def UploadImage(  # noqa: N802 (gRPC's name)
        self, requests: AsyncIterator[uploads_pb2.UploadImageRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> uploads_pb2.Upload:
        """Counts."""
        size = 0
        async for request in requests:
            size += len(request.body.data)
        return uploads_pb2.Upload(size_bytes=size)


async def serve(port: int, add: Callable[[grpc.aio.Server], None]) -> None:
    """Serves what `add` puts into the server, and says when it does."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 16 << 20)])
    add(server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    counter = Counter()  # type: ignore[abstract]  # the other methods are not called
    uvloop.run(
        serve(int(sys.argv[1]), lambda server: uploads_pb2_grpc.add_UploadServiceServicer_to_server(counter, server))
    )
