"""Routes that change under load, on three replicas behind one edge; and what a shadow costs the calls that it sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from tests.faults.model_callers import BATCH, ONE, ModelCallers, change_routes, metric, seen_everywhere
from tests.faults.pair import Pair, pair

from benchmarks import picture
from benchmarks.job import Job
from benchmarks.open_loop import Callers
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, write_models
from camserve.v1.model_routes_pb2 import ChangeModelRoutesRequest as Change
from camserve.v1.model_routes_pb2 import ModelCanary, ModelShadow

_FREE, _PINNED = "free", "pinned"
_CALLS, _QUICK_CALLS = 10_000, 400
# What is done in turn, and which version answers a tenant that is not pinned from then on.
_STEPS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("promote", "1", {"promote": Change.Promote(version="1")}),
    ("rollback", "2", {"rollback": Change.Rollback()}),
    ("canary", "1", {"canary": ModelCanary(version="1", tenants=[_FREE])}),
    ("rollback", "2", {"rollback": Change.Rollback()}),
)
_ROUNDS = 5
_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class _Switch:
    """A change: how long after it was acknowledged the last call began that an old version answered."""

    what: str
    calls: int
    lag_s: float


@dataclass(frozen=True, slots=True)
class _Load:
    """Latencies at half load without the shadow and with it, medians over the rounds."""

    per_s: float
    without_ms: float
    with_ms: float
    shown: float


def measure(place: Place, plan: Plan) -> Findings:
    """Switches under load, then half load with and without a shadow."""
    models_dir = write_models(place.folder / "routes-models", place.shapes, [SHAPES])
    place.progress("routes: starting three replicas")
    with pair(place.folder / "routes", names="abc", models_dir=models_dir, queue_wait_s=20) as three:
        callers, switches = asyncio.run(_switch(place, plan, three))
    heard = callers.heard
    failed = sum(one.status != 200 for one in heard)
    mixed = sum(one.mixed for one in heard)
    moved = sum(one.tenant == _PINNED and one.versions != {"2"} for one in heard)
    slowest_s = max(switch.lag_s for switch in switches)
    print(
        table(
            "Routes changed under load on three replicas",
            ("changes", "calls", "failed", "mixed", "pinned tenant moved", "slowest, s"),
            [(str(len(switches)), str(len(heard)), str(failed), str(mixed), str(moved), number(slowest_s))],
        )
    )
    verdicts = [
        Verdict("failed calls while routes change", failed, 0),
        Verdict("answers of two versions while routes change", mixed, 0),
        Verdict("answers of another version to a pinned tenant", moved, 0),
        Verdict("from a change until no replica answers by the old routes", slowest_s, 2, " s"),
    ]
    figures: dict[str, Any] = {"switches": [asdict(switch) for switch in switches]}
    if not plan.quick:
        place.progress("routes: half load with and without a shadow")
        with pair(place.folder / "shadow", names="a", models_dir=models_dir) as one:
            load = asyncio.run(_shadow(plan, one))
        print(
            table(
                "A shadow of all calls at half load, shapes with a heatmap, by Envoy",
                ("calls /s", "mean ms without", "mean ms with", "seen"),
                [(number(load.per_s), number(load.without_ms), number(load.with_ms), f"{100 * load.shown:.0f} %")],
            )
        )
        verdicts.append(Verdict("mean latency with a shadow / without", load.with_ms / load.without_ms, 1.05))
        figures["shadow"] = asdict(load)
    return Findings(figures, verdicts)


async def _switch(place: Place, plan: Plan, three: Pair) -> tuple[ModelCallers, list[_Switch]]:
    callers = ModelCallers(three.edge_url, {tenant: three.token(tenant) for tenant in (_FREE, _PINNED)})
    await callers.learn(["1", "2"])
    made = await change_routes(three, three.replicas[0], pin=Change.Pin(tenant=_PINNED, version="2"))
    await seen_everywhere(three, made.after.revision)
    rounds = 1 if plan.quick else 3
    each = (_QUICK_CALLS if plan.quick else _CALLS) // (rounds * len(_STEPS))
    switches = []
    place.progress("routes: changing them under load")
    async with callers.calling([ONE, ONE, BATCH]):
        await callers.until(each // 2)
        for turn in range(rounds * len(_STEPS)):
            what, version, change = _STEPS[turn % len(_STEPS)]
            # By another replica each time.
            await change_routes(three, three.replicas[turn % 3], **change)
            acknowledged = time.monotonic()
            await callers.until(each, since=acknowledged)
            after = [one for one in callers.heard if one.began > acknowledged and one.tenant == _FREE]
            old = [one.began for one in after if one.versions != {version}]
            switches.append(_Switch(what, len(after), max(old, default=acknowledged) - acknowledged))
    return callers, switches


async def _shadow(plan: Plan, one: Pair) -> _Load:
    request = Job(picture.photo(512, 384), "image/jpeg", SHAPES, cam=True).as_request(one.token())
    callers = Callers(int(one.edge_url.rpartition(":")[2]), request, seed=plan.seed)
    await callers.in_turn(4, callers=_CONCURRENCY)
    per_s = (await callers.in_turn(6, callers=_CONCURRENCY)).goodput / 2
    means: dict[bool, list[float]] = {False: [], True: []}
    seen = offered = 0.0
    for _ in range(_ROUNDS):
        for shadowed in (False, True):
            change = (
                {"shadow": ModelShadow(version="1", percent=100)} if shadowed else {"end_shadow": Change.EndShadow()}
            )
            made = await change_routes(one, one.replicas[0], **change)
            await seen_everywhere(one, made.after.revision)
            before = await metric(one.replicas[0], "camserve_shadows_total", outcome="shown")
            outcome = await callers.run(per_s, 10)
            means[shadowed].append(1000 * sum(outcome.answered) / len(outcome.answered))
            if shadowed:
                seen += await metric(one.replicas[0], "camserve_shadows_total", outcome="shown") - before
                offered += outcome.offered
    callers.close()
    return _Load(per_s, median(means[False]), median(means[True]), seen / offered)
