"""Two replicas behind one edge, under load: one is killed, then each is restarted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.faults.callers import INFER, JOB, KEYED, Callers
from tests.faults.pair import Pair, Process, pair

from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, write_models

_KILLED, _RESTARTED = "one killed, callers try again", "each restarted, callers call once"
_PAUSE_S = 0.1
_STEADY_CALLS = 30


@dataclass(frozen=True, slots=True)
class _Row:
    what: str
    calls: int
    failed: int
    longest_s: float
    heard: dict[str, int]


def measure(place: Place, plan: Plan) -> Findings:
    """A kill, as long as the key of a call that it cut is held, and a rolling restart."""
    models_dir = write_models(place.folder / "rolling-models", place.shapes, [SHAPES])
    place.progress("rolling: starting two replicas")
    with pair(place.folder / "rolling", models_dir=models_dir) as both:
        rows = asyncio.run(_rows(place, plan, both))
    print(
        table(
            "Two replicas behind one edge",
            ("what happens", "calls", "failed", "longest s"),
            [(row.what, str(row.calls), str(row.failed), number(row.longest_s)) for row in rows],
        )
    )
    verdicts = [Verdict(f"failed calls, {row.what}", row.failed, 0) for row in rows]
    return Findings([asdict(row) for row in rows], verdicts)


async def _rows(place: Place, plan: Plan, both: Pair) -> list[_Row]:
    rows = []
    if not plan.quick:
        place.progress("rolling: one is killed")
        rows.append(await _row(_KILLED, both, plan, both.replicas[:1], signal.SIGKILL, [KEYED] * 4 + [JOB] * 2))
    place.progress("rolling: each is restarted")
    chosen = both.replicas[:1] if plan.quick else both.replicas
    kinds = [INFER] * 4 + [KEYED] * 2 + [JOB] * 2
    rows.append(await _row(_RESTARTED, both, plan, chosen, signal.SIGTERM, kinds))
    return rows


async def _row(what: str, both: Pair, plan: Plan, ending: Sequence[Process], number: int, kinds: Sequence[str]) -> _Row:
    callers = Callers(both.edge_url, both.token(), seed=plan.seed, pause_s=_PAUSE_S, timeout_s=60.0)
    async with callers.calling(kinds, retry=what == _KILLED):
        await callers.until(_STEADY_CALLS)
        for replica in ending:
            await asyncio.to_thread(replica.end, number)
            await both.start_again(replica)
            await callers.until(len(callers.heard) + _STEADY_CALLS)
    failed = sum(not one.answered for one in callers.heard)
    longest_s = max(one.took_s for one in callers.heard)
    return _Row(what, len(callers.heard), failed, longest_s, dict(callers.count()))
