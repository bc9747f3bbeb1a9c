"""What the client costs over raw stubs: the same calls of a running service in turns, 32 at once.

The client sends a key with every write, which costs the service a look into its store; raw stubs with a key as well
tell that apart.

    python clients/python/benchmarks/overhead.py 127.0.0.1:50051 "$TOKEN" [rounds]

Needs the repository's own stubs (`pip install -e .`), which a client's installation does not have.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import grpc

from camserve.v1 import inference_pb2, inference_pb2_grpc
from camserve_client import AsyncClient

IMAGE = (Path(__file__).parents[3] / "models" / "shapes" / "2" / "golden" / "star.png").read_bytes()
AT_ONCE, CALLS = 32, 640


async def measured(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Returns the milliseconds that a call takes, of the clock and of this process's CPU, on average of many."""
    left = iter(range(CALLS))

    async def caller() -> None:
        for _ in left:
            await call()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
    return (time.perf_counter() - wall) * 1000 / CALLS, (time.process_time() - cpu) * 1000 / CALLS


async def main(target: str, token: str, rounds: int) -> None:
    """Prints medians of rounds, and their ratio."""
    metadata = (("authorization", f"Bearer {token}"),)
    async with grpc.aio.insecure_channel(target) as channel, AsyncClient(f"grpc://{target}", token=token) as client:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def keyed() -> None:
            await raw((("idempotency-key", str(uuid4())),))

        async def raw(more: tuple[tuple[str, str], ...] = ()) -> object:
            request = inference_pb2.InferRequest(model="shapes")
            request.image.bytes = IMAGE
            request.grad_cam.enabled = True
            request.response.heatmap = "inline"
            while True:
                try:
                    return await stub.Infer(request, metadata=metadata + more, timeout=60)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    # As the client does when the service is busy.
                    await asyncio.sleep(random.uniform(0, 0.5))

        async def ours() -> None:
            await client.infer(IMAGE, model="shapes", cam=True)

        calls = {"raw stubs": raw, "with a key": keyed, "client": ours}
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                seen[name].append(await measured(call))
    medians = {name: [statistics.median(one) for one in zip(*figures, strict=True)] for name, figures in seen.items()}
    for name, (wall, cpu) in medians.items():
        print(f"{name:10} {wall:7.2f} ms a call, {cpu:6.3f} ms of CPU here")
    for name in ("raw stubs", "with a key"):
        pairs = zip(seen[name], seen["client"], strict=True)
        ratios = [ours_wall / raw_wall for (raw_wall, _), (ours_wall, _) in pairs]
        print(f"client / {name}: median {statistics.median(ratios):.3f} of {rounds} rounds")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 9))
