"""Calls arrive at their own times, twice and ten times as many as are answered; the rest must be refused, and soon."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

from benchmarks import picture, processes
from benchmarks.job import Job
from benchmarks.open_loop import Callers, Outcome, quantile
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import RESNET, Service

_CONCURRENCY = 16
_LOADS = (1, 2, 10)
_RECOVERED_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class _Row:
    load: float
    offered_per_s: float
    goodput_per_s: float
    callers_cores: float
    p50_ms: float
    p99_ms: float
    refused: int
    refused_p50_ms: float
    refused_p99_ms: float
    failed: int
    without_retry_after: int
    replica_mb: float


def measure(place: Place, plan: Plan) -> Findings:
    """Overload with resnet50, whose inference is the bottleneck; the callers share the machine."""
    with Service(place.folder / "overload", place.models_dir) as service:
        rows = asyncio.run(_loads(place, plan, service))
    print(
        table(
            "Overload: open-loop load as multiples of what 16 callers get, resnet50 with a heatmap, by Envoy",
            (
                *("load", "offered /s", "answered /s", "callers' cores", "p50 ms", "p99 ms"),
                *("refused", "p50 ms", "p99 ms", "replica MB"),
            ),
            [
                (
                    f"{row.load:g}x",
                    *(number(value) for value in (row.offered_per_s, row.goodput_per_s, row.callers_cores)),
                    *(number(value) for value in (row.p50_ms, row.p99_ms)),
                    str(row.refused),
                    *(number(value) for value in (row.refused_p50_ms, row.refused_p99_ms, row.replica_mb)),
                )
                for row in rows
            ],
        )
    )
    before, one, *overloads, after = rows
    peak = max(row.goodput_per_s for row in rows)
    verdicts = []
    for row in overloads:
        verdicts += [
            Verdict(f"goodput at {row.load:g}x / peak", row.goodput_per_s / peak, 0.9, at_least=True),
            Verdict(f"p99 of the admitted at {row.load:g}x / at 1x", row.p99_ms / one.p99_ms, 2),
            Verdict(f"refused at {row.load:g}x, p99", row.refused_p99_ms, 100, " ms"),
        ]
    verdicts += [
        Verdict("other 5xx, timeouts and broken connections", sum(row.failed for row in rows), 0),
        Verdict("refusals without Retry-After", sum(row.without_retry_after for row in rows), 0),
        Verdict("calls refused at half load, 5 s after", after.refused, 0),
        Verdict("p99 at half load, 5 s after / at 1x", after.p99_ms / one.p99_ms, 1),
        Verdict("memory of the replica at half load, after / before", after.replica_mb / before.replica_mb, 1.1),
    ]
    return Findings([asdict(row) for row in rows], verdicts)


async def _loads(place: Place, plan: Plan, service: Service) -> list[_Row]:
    job = Job(picture.photo(512, 384), "image/jpeg", RESNET, cam=True)
    request = job.as_request(service.token)
    place.progress("overload: what can be had")
    await _closed(service, request, plan.seconds(6, 3))
    capacity = (await _closed(service, request, plan.seconds(10, 5))).goodput
    rows: list[_Row] = []
    # At half load before as well: pictures alone in their batches take memory that others do not.
    for load in (0.5, *_LOADS, 0.5):
        if rows and load < 1:
            await asyncio.sleep(_RECOVERED_AFTER_S)
        place.progress(f"overload: {load:g} times {capacity:.1f} calls a second")
        rows.append(await _open(plan, service, request, load, load * capacity))
    return rows


async def _closed(service: Service, request: bytes, seconds: float) -> Outcome:
    """Returns what callers get who wait for each answer."""
    callers = Callers(service.edge_port, request, seed=0)
    outcome = await callers.in_turn(seconds, callers=_CONCURRENCY)
    callers.close()
    return outcome


async def _open(plan: Plan, service: Service, request: bytes, load: float, per_s: float) -> _Row:
    callers = Callers(service.edge_port, request, seed=plan.seed)
    used_s, started = time.process_time(), time.monotonic()
    outcome = await callers.run(per_s, plan.seconds(20, 6))
    callers_cores = (time.process_time() - used_s) / (time.monotonic() - started)
    callers.close()
    refused = len(outcome.refused)
    return _Row(
        load=load,
        offered_per_s=outcome.offered / outcome.seconds,
        goodput_per_s=outcome.goodput,
        callers_cores=callers_cores,
        p50_ms=1000 * quantile(outcome.answered, 0.5),
        p99_ms=1000 * quantile(outcome.answered, 0.99),
        refused=refused,
        refused_p50_ms=1000 * quantile(outcome.refused, 0.5),
        refused_p99_ms=1000 * quantile(outcome.refused, 0.99),
        failed=outcome.offered - len(outcome.answered) - refused,
        without_retry_after=outcome.without_retry_after,
        replica_mb=processes.memory(service.pids()["replica"]).rss_mb,
    )
