"""Every part fails once under a light, steady load: what callers hear meanwhile, and how soon it is over."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass

from tests.faults.callers import INFER, JOB, KEYED, Callers, Heard

from benchmarks.report import Verdict, number, table
from benchmarks.resilience.fault_systems import SYSTEMS, Fault
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import Service

_KINDS = (INFER, INFER, KEYED, KEYED, JOB)
_STEADY_CALLS = 20
# As long as every call is answered the fault counts as over.
_STEADY_S = 1.0
_GIVE_UP_S = 20.0
_JOBS_END_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class _Row:
    fault: str
    seconds: float
    answered: int
    refused: int
    expected: int
    failed: int
    first_s: float
    full_s: float
    heard: dict[str, int]
    lost_jobs: int


def measure(place: Place, plan: Plan) -> Findings:
    """Faults of each system in an order that the seed decides."""
    rng = random.Random(plan.seed)
    rows: list[_Row] = []
    for system in SYSTEMS[: 1 if plan.quick else None]:
        with system(place) as (service, faults):
            chosen = [fault for fault in faults if fault.quick or not plan.quick]
            for fault in rng.sample(chosen, len(chosen)):
                place.progress(f"faults: {fault.name}")
                rows.append(asyncio.run(_row(plan, service, fault)))
    print(
        table(
            "Faults: calls of 5 callers who call once, without trying again, by Envoy",
            ("fault", "for s", "answered", "refused", "told of it", "failed", "first s", "all s", "heard"),
            [
                (
                    row.fault,
                    number(row.seconds),
                    *(str(count) for count in (row.answered, row.refused, row.expected, row.failed)),
                    *(number(value) for value in (row.first_s, row.full_s)),
                    ", ".join(f"{code} {count}" for code, count in row.heard.items()),
                )
                for row in rows
            ],
        )
    )
    return Findings(
        [asdict(row) for row in rows],
        [
            Verdict("calls that failed otherwise than documented, all faults", sum(row.failed for row in rows), 0),
            Verdict("accepted jobs that did not end, all faults", sum(row.lost_jobs for row in rows), 0),
            Verdict("longest time from the end of a fault until all is answered", _worst(rows), 5, " s"),
        ],
    )


def _worst(rows: list[_Row]) -> float:
    return max(max(row.first_s, row.full_s) for row in rows)


async def _row(plan: Plan, service: Service, fault: Fault) -> _Row:
    options = {"grad_cam": {"enabled": True}} if fault.stores else {}
    url = f"http://127.0.0.1:{service.edge_port}"
    callers = Callers(url, service.token, model=fault.model, seed=plan.seed, options=options)
    async with callers.calling(_KINDS):
        await callers.until(_STEADY_CALLS)
        began = time.monotonic()
        await asyncio.to_thread(fault.begin)
        await asyncio.sleep(fault.seconds if not plan.quick else fault.seconds / 3)
        await asyncio.to_thread(fault.end)
        ended = time.monotonic()
        while not _over(callers.heard, ended) and time.monotonic() - ended < _GIVE_UP_S:
            await asyncio.sleep(0.05)
    heard = [one for one in callers.heard if one.at > began]
    others = [one for one in heard if not one.answered and not one.refused]
    expected = sum(one.code in fault.expected for one in others)
    return _Row(
        fault=fault.name,
        seconds=ended - began,
        answered=sum(one.answered for one in heard),
        refused=sum(one.refused for one in heard),
        expected=expected,
        failed=len(others) - expected,
        first_s=max(_first(heard, kind, ended) for kind in _KINDS),
        full_s=max((one.at - ended for one in heard if not one.answered and one.at > ended), default=0.0),
        heard=dict(Counter(one.code for one in heard if one.code)),
        lost_jobs=len(await callers.lost_jobs(_JOBS_END_WITHIN_S)),
    )


def _over(heard: list[Heard], ended: float) -> bool:
    last_bad = max((one.at for one in heard if not one.answered), default=0.0)
    firsts = [_first(heard, kind, ended) for kind in _KINDS]
    return max(firsts) < _GIVE_UP_S and time.monotonic() - max(last_bad, ended) > _STEADY_S


def _first(heard: list[Heard], kind: str, ended: float) -> float:
    """Returns the time until the first answer after the fault to a call of a kind."""
    return min(
        (one.at - ended for one in heard if one.kind == kind and one.answered and one.at > ended), default=_GIVE_UP_S
    )
