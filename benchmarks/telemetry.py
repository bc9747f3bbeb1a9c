"""What traces take of throughput: services that record none, a tenth and all of them, in turns."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import uvloop
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from benchmarks.counter import serve
from benchmarks.driver import Driver
from benchmarks.service import SHAPES, Service

RATIOS = (0.0, 0.1, 1.0)
_CALLERS = 8


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and keeps none."""

    async def Export(  # noqa: N802 (gRPC's name)
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Answers."""
        return trace_service_pb2.ExportTraceServiceResponse()


def measure_telemetry(
    folder: Path, models_dir: Path, photo: Path, rounds: int, seconds: float, report: Callable[[str], None]
) -> dict[tuple[bool, float], float]:
    """Returns the throughput of `shapes` with and without heatmap at each ratio, as a share of that without traces."""
    times: defaultdict[tuple[bool, float], list[float]] = defaultdict(list)
    with ExitStack() as opened:
        endpoint = opened.enter_context(_collector())
        services = {
            ratio: opened.enter_context(Service(folder / f"traced-{ratio}", models_dir, _settings(endpoint, ratio)))
            for ratio in RATIOS
        }
        load = opened.enter_context(Driver("load", folder))
        load.hello()
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}")
            for cam in (True, False):
                for ratio in RATIOS if number % 2 == 0 else reversed(RATIOS):
                    service = services[ratio]
                    sample = load.ask(
                        picture=str(photo),
                        model=SHAPES,
                        cam=cam,
                        concurrency=_CALLERS,
                        warm_up_s=0.25 * seconds,
                        seconds=seconds,
                        way="upload",
                        target=service.grpc_target,
                        port=service.edge_port,
                        token=service.token,
                    )
                    times[cam, ratio].append(sample["ms_per_image"])
    return {
        (cam, ratio): median(
            without / traced for without, traced in zip(times[cam, 0.0], times[cam, ratio], strict=True)
        )
        for cam, ratio in times
        if ratio
    }


def _settings(endpoint: str, ratio: float) -> dict[str, str]:
    return {"CAMSERVE_OTLP_ENDPOINT": endpoint, "CAMSERVE_TRACE_RATIO": str(ratio)} if ratio else {}


@contextmanager
def _collector() -> Iterator[str]:
    """Yields the endpoint of a collector in a process of its own."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    command = [sys.executable, "-m", "benchmarks.telemetry", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


if __name__ == "__main__":
    uvloop.run(
        serve(
            int(sys.argv[1]),
            lambda server: trace_service_pb2_grpc.add_TraceServiceServicer_to_server(  # type: ignore[no-untyped-call]
                Collector(), server
            ),
        )
    )
