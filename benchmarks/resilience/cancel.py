"""Callers who leave before their answer, over REST and gRPC, many at once: what stays behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass

import grpc

from benchmarks import picture, processes
from benchmarks.job import Job
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, Service
from camserve.v1 import inference_pb2, inference_pb2_grpc

_CALLS, _QUICK_CALLS = 100_000, 3_000
_AT_ONCE = 48
_LEAVES_WITHIN_S = 0.03
_IDLE_WITHIN_S = 5.0
_METERS = {
    "calls running": "camserve_calls_running",
    "places at the gate": "camserve_gate_calls",
    "bytes of images": "camserve_images_in_flight_bytes",
    "waiting for the device": "camserve_engine_queue",
    "waiting for a worker": "camserve_imaging_queue",
}


@dataclass(frozen=True, slots=True)
class _Soak:
    calls: int
    left: dict[str, int]
    seconds: float
    before_mb: float
    warm_mb: float
    end_mb: float
    mb_per_10_000: float
    idle_after_s: float
    remains: dict[str, float]


def measure(place: Place, plan: Plan) -> Findings:
    """Callers who leave, with the bundled model; the callers share the machine with the service."""
    with Service(place.folder / "cancel", place.models_dir) as service:
        soak = asyncio.run(_soak(place, plan, service))
    print(
        table(
            "Callers who leave: REST connections that close, gRPC calls that are cancelled, at once or within 30 ms",
            ("calls", "a second", "before MB", "warm MB", "end MB", "MB per 10,000", "idle after s"),
            [
                (
                    str(soak.calls),
                    number(soak.calls / soak.seconds),
                    *(number(mb) for mb in (soak.before_mb, soak.warm_mb, soak.end_mb, soak.mb_per_10_000)),
                    number(soak.idle_after_s),
                )
            ],
        )
    )
    verdicts = [
        Verdict(f"memory after {soak.calls} callers left / after warm-up", soak.end_mb / soak.warm_mb, 1.05),
        Verdict("everything is idle after", soak.idle_after_s, 1, " s"),
        *(Verdict(f"{name} afterwards", value, 0) for name, value in soak.remains.items()),
    ]
    return Findings(asdict(soak), verdicts)


async def _soak(place: Place, plan: Plan, service: Service) -> _Soak:
    replica = service.pids()["replica"]
    calls = _QUICK_CALLS if plan.quick else _CALLS
    # Beyond this the rest is left out and the number says so.
    ends = time.monotonic() + plan.seconds(100, 8)
    before_mb = processes.memory(replica).rss_mb
    samples: list[tuple[int, float]] = []
    left: Counter[str] = Counter()
    started = time.monotonic()
    place.progress(f"cancel: up to {calls} callers leave")
    async with _Leavers(service, plan.seed) as leavers:
        while left.total() < calls and time.monotonic() < ends:
            left += await leavers.leave(min(calls // 20, calls - left.total()))
            samples.append((left.total(), processes.memory(replica).rss_mb))
    seconds = time.monotonic() - started
    idle_after_s, remains = await _idle(service)
    # A fifth of the calls: until then pools and caches fill.
    warm = samples[len(samples) // 5 :]
    return _Soak(
        calls=left.total(),
        left=dict(left),
        seconds=seconds,
        before_mb=before_mb,
        warm_mb=warm[0][1],
        end_mb=processes.memory(replica).rss_mb,
        mb_per_10_000=10_000 * _slope(warm),
        idle_after_s=idle_after_s,
        remains=remains,
    )


class _Leavers:
    """Callers of both kinds; every other one is of the other kind."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._random = random.Random(seed)
        self._picture = picture.photo(512, 384)
        job = Job(self._picture, "image/jpeg", SHAPES, cam=True)
        self._request = job.as_request(service.token)
        self._message = inference_pb2.InferRequest(model=SHAPES)
        self._message.image.bytes = self._picture
        self._message.grad_cam.enabled = True
        self._channel: grpc.aio.Channel

    async def __aenter__(self) -> _Leavers:
        self._channel = grpc.aio.insecure_channel(self._service.grpc_target)
        self._infer = inference_pb2_grpc.InferenceServiceStub(self._channel).Infer
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def leave(self, count: int) -> Counter[str]:
        """Lets so many callers come and leave; returns how many of each kind, answered ones told apart."""
        left: Counter[str] = Counter()
        waiting = iter(range(count))

        async def caller() -> None:
            for turn in waiting:
                delay_s = self._random.choice((0.0, self._random.uniform(0, _LEAVES_WITHIN_S)))
                left[await (self._rest(delay_s) if turn % 2 else self._native(delay_s))] += 1

        await asyncio.gather(*(caller() for _ in range(_AT_ONCE)))
        return left

    async def _rest(self, delay_s: float) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._service.edge_port)
        writer.write(self._request)
        await asyncio.sleep(delay_s)
        answered = not reader.at_eof() and bool(getattr(reader, "_buffer", b""))
        writer.transport.abort()
        return "REST, answered before" if answered else "REST"

    async def _native(self, delay_s: float) -> str:
        call = self._infer(self._message, metadata=(("authorization", f"Bearer {self._service.token}"),))
        await asyncio.sleep(delay_s)
        cancelled = call.cancel()
        with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
            await call
        return "gRPC" if cancelled else "gRPC, answered before"


async def _idle(service: Service) -> tuple[float, dict[str, float]]:
    """Returns how long it took until nothing was under way any more, and what still was after the longest wait."""
    started = time.monotonic()
    while True:
        remains = {name: service.metric(metric) for name, metric in _METERS.items()}
        took_s = time.monotonic() - started
        if not any(remains.values()) or took_s > _IDLE_WITHIN_S:
            return took_s, remains
        await asyncio.sleep(0.05)


def _slope(samples: list[tuple[int, float]]) -> float:
    """Returns the least-squares slope, in MB a call."""
    mean_calls = sum(calls for calls, _ in samples) / len(samples)
    mean_mb = sum(mb for _, mb in samples) / len(samples)
    spread = sum((calls - mean_calls) ** 2 for calls, _ in samples)
    return sum((calls - mean_calls) * (mb - mean_mb) for calls, mb in samples) / spread if spread else 0.0
