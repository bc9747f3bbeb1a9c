"""A caller who means no harm, alone and beside each attack, at the edge and on the gRPC port."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import grpc

from benchmarks import picture, processes
from benchmarks.job import Job
from benchmarks.open_loop import Callers, Outcome, quantile
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, Service

_TENANTS = 20
_ENDED_WITHIN_S = 20.0


@dataclass(frozen=True, slots=True)
class _Attack:
    kind: str
    connections: int
    quick_connections: int
    edge_only: bool = False


_ATTACKS = (
    _Attack("slow connections", 1000, 100),
    _Attack("rapid reset", 4, 2),
    _Attack("header flood", 4, 2),
    _Attack("half-open uploads", 200, 50),
    _Attack("deep JSON", 4, 2, edge_only=True),
    _Attack("gRPC bombs", 4, 2),
)


@dataclass(frozen=True, slots=True)
class _Row:
    attack: str
    port: str
    connections: int
    calls: int
    failed: int
    alone_p50_ms: float
    alone_p99_ms: float
    p50_ms: float
    p99_ms: float
    replica_mb: float
    edge_mb: float


def measure(place: Place, plan: Plan) -> Findings:
    """Hostile callers, who run as processes of the lowest priority, beside one closed-loop caller of `shapes`."""
    with Service(place.folder / "hostile", place.models_dir) as service:
        rows = asyncio.run(_rows(place, plan, service))
    print(
        table(
            "Hostile callers: one closed-loop caller alone and beside each attack",
            (
                "attack",
                "port",
                "connections",
                "alone p50 ms",
                "p99 ms",
                "beside p50 ms",
                "p99 ms",
                "replica MB",
                "edge MB",
            ),
            [
                (
                    row.attack,
                    row.port,
                    str(row.connections),
                    *(number(ms) for ms in (row.alone_p50_ms, row.alone_p99_ms, row.p50_ms, row.p99_ms)),
                    *(number(mb) for mb in (row.replica_mb, row.edge_mb)),
                )
                for row in rows
            ],
        )
    )
    verdicts = [
        Verdict(f"p99 beside {row.attack}, {row.port} / alone", row.p99_ms / row.alone_p99_ms, 2) for row in rows
    ]
    return Findings(
        [asdict(row) for row in rows],
        [*verdicts, Verdict("healthy calls that were not answered", sum(row.failed for row in rows), 0)],
    )


async def _rows(place: Place, plan: Plan, service: Service) -> list[_Row]:
    job = Job(picture.photo(512, 384), "image/jpeg", SHAPES, cam=True)
    callers: dict[str, _Edge | _Direct] = {"edge": _Edge(service, job), "direct": _Direct(service, job)}
    rows = []
    first = {port: await caller.answers(plan.seconds(3, 1)) for port, caller in callers.items()}
    for attack in _ATTACKS:
        for port, caller in callers.items():
            if attack.edge_only and port != "edge":
                continue
            place.progress(f"hostile: {attack.kind}, {port}")
            connections = attack.quick_connections if plan.quick else attack.connections
            alone = first[port] if plan.quick else await caller.answers(3)
            with _attacker(attack.kind, service, edge=port == "edge", connections=connections):
                beside = await caller.answers(plan.seconds(5, 0.3))
            pids = service.pids()
            rows.append(
                _Row(
                    attack=attack.kind,
                    port=port,
                    connections=connections,
                    calls=len(alone.answered) + len(beside.answered),
                    failed=alone.offered + beside.offered - len(alone.answered) - len(beside.answered),
                    alone_p50_ms=1000 * quantile(alone.answered, 0.5),
                    alone_p99_ms=1000 * quantile(alone.answered, 0.99),
                    p50_ms=1000 * quantile(beside.answered, 0.5),
                    p99_ms=1000 * quantile(beside.answered, 0.99),
                    replica_mb=processes.memory(pids["replica"]).rss_mb,
                    edge_mb=processes.memory(pids["Envoy"]).rss_mb,
                )
            )
    for caller in callers.values():
        await caller.close()
    return rows


@contextmanager
def _attacker(kind: str, service: Service, *, edge: bool, connections: int) -> Iterator[None]:
    """Attacks while entered."""
    order = {
        "port": service.edge_port if edge else int(service.grpc_target.rpartition(":")[2]),
        "edge": edge,
        "connections": connections,
        "tokens": [service.token_of(f"hostile-{tenant}") for tenant in range(_TENANTS)],
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.resilience.attackers", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the attack did not begin: {kind}")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _Edge:
    """Calls over HTTP/1.1 through Envoy."""

    def __init__(self, service: Service, job: Job) -> None:
        self._callers = Callers(service.edge_port, job.as_request(service.token), seed=0)

    async def answers(self, seconds: float) -> Outcome:
        return await self._callers.in_turn(seconds)

    async def close(self) -> None:
        self._callers.close()


class _Direct:
    """Calls on the gRPC port."""

    def __init__(self, service: Service, job: Job) -> None:
        self._channel = grpc.aio.insecure_channel(service.grpc_target)
        self._infer = self._channel.unary_unary("/camserve.v1.InferenceService/Infer", None, None)
        self._message = job.as_message()
        self._metadata = (("authorization", f"Bearer {service.token}"),)

    async def answers(self, seconds: float) -> Outcome:
        outcome, ends = Outcome(seconds), time.monotonic() + seconds
        while time.monotonic() < ends:
            outcome.offered += 1
            started = time.monotonic()
            try:
                await self._infer(self._message, metadata=self._metadata, timeout=30)
            except grpc.aio.AioRpcError as error:
                outcome.statuses[error.code().name] += 1
                continue
            outcome.answered.append(time.monotonic() - started)
        return outcome

    async def close(self) -> None:
        await self._channel.close(None)
