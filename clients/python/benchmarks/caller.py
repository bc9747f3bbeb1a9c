"""Makes calls of a running service as its standard input says; `python -m benchmarks.clients` measures it meanwhile.

Needs the repository's own stubs (`pip install -e .`), which a client's installation does not have.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import grpc

from camserve.v1 import inference_pb2, inference_pb2_grpc
from camserve_client import AsyncClient

AT_ONCE = 32


async def repeat(call: Callable[[], Awaitable[object]], count: int) -> None:
    """Makes `count` calls, 32 at once."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))


async def main() -> None:
    """Does what each line says, and answers it with a line."""
    address, token = os.environ["CAM_ADDRESS"], os.environ["CAM_TOKEN"]
    picture = Path(os.environ["CAM_PICTURE"]).read_bytes()
    async with grpc.aio.insecure_channel(address) as channel, AsyncClient(address, token=token) as client:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def raw() -> None:
            request = inference_pb2.InferRequest(model="shapes")
            request.image.bytes = picture
            request.grad_cam.enabled = True
            request.response.heatmap = "inline"
            metadata = (("authorization", f"Bearer {token}"), ("idempotency-key", str(uuid4())))
            await stub.Infer(request, metadata=metadata, timeout=60)

        async def by_client() -> None:
            await client.infer(picture, model="shapes", cam=True)

        calls = {"raw": raw, "client": by_client}
        while line := await asyncio.to_thread(sys.stdin.readline):
            work, argument = line.rstrip("\n").split(" ", 1)
            if work == "upload":
                print((await client.upload(argument)).storage_id, flush=True)
            else:
                await repeat(calls[work], int(argument))
                print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
