"""Calls of one model while another one is slow, fails or hangs."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.engine.tiny import write_model

from benchmarks import picture
from benchmarks.job import Job
from benchmarks.open_loop import Callers, Outcome, quantile
from benchmarks.report import Verdict, number, table
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import SHAPES, Service, write_models

_ROOT = Path(__file__).parents[2]
_FAULTY = "faulty"
# What the model does, and the word in the file that makes it do so; see tests/engine/tiny.py.
_FAULTS = {"is slow": "slow", "hangs": "hang", "fails": "raise"}
_SECONDS, _QUICK_SECONDS = 6.0, 2.0
_CALLERS = 4
_PAUSE_S = 0.1
# The promise of docs/reliability.md: a batch has the device to itself for that long.
_MOST_WAIT_MS = 100.0


@dataclass(frozen=True, slots=True)
class _Row:
    beside: str
    calls: int
    failed: int
    p50_ms: float
    p99_ms: float
    heard: dict[str, int]


def measure(place: Place, plan: Plan) -> Findings:
    """One caller of the bundled model who waits for each answer, alone and beside callers of a model at fault."""
    models_dir = write_models(place.folder / "bulkheads-models", place.shapes, [SHAPES])
    write_model(models_dir, _FAULTY, architecture='builder = "tests.engine.tiny:SwitchedNet"')
    switch = place.folder / "bulkheads-fault"
    settings = {"PYTHONPATH": str(_ROOT), "TINY_FAULT": str(switch)}
    # For half of the time a model that hangs is waited for, then it is left alone.
    settings["CAMSERVE_PASS_DEADLINE_S"] = str(plan.seconds(_SECONDS, _QUICK_SECONDS) / 2)
    place.progress("bulkheads: starting")
    with Service(place.folder / "bulkheads", models_dir, settings) as service:
        rows = asyncio.run(_rows(place, plan, service, switch))
    print(
        table(
            f"Calls of one model beside {_CALLERS} callers of another one that is at fault, by Envoy",
            ("the other one", "calls", "p50 ms", "p99 ms", "failed", "its callers heard"),
            [
                (
                    row.beside,
                    str(row.calls),
                    *(number(ms) for ms in (row.p50_ms, row.p99_ms)),
                    str(row.failed),
                    ", ".join(f"{status} {count}" for status, count in row.heard.items()),
                )
                for row in rows
            ],
        )
    )
    alone, *faults = rows
    verdicts = [
        *(
            Verdict(
                f"p99 beside a model that {row.beside}, above alone", row.p99_ms - alone.p99_ms, _MOST_WAIT_MS, " ms"
            )
            for row in faults
        ),
        Verdict("calls of the other model that were not answered", sum(row.failed for row in rows), 0),
    ]
    return Findings([asdict(row) for row in rows], verdicts)


async def _rows(place: Place, plan: Plan, service: Service, switch: Path) -> list[_Row]:
    callers = Callers(service.edge_port, _request(service, SHAPES, cam=True), seed=plan.seed)
    others = Callers(service.edge_port, _request(service, _FAULTY, cam=False), seed=plan.seed)
    seconds = plan.seconds(_SECONDS, _QUICK_SECONDS)
    await callers.in_turn(1)
    # Alone before each fault, so that what else the machine does meets both.
    alone, rows = [], []
    for what, how in _FAULTS.items():
        place.progress(f"bulkheads: alone, and while the other model {what}")
        await _until_answered(others)
        alone.append(await callers.in_turn(seconds / 2))
        switch.write_text(how)
        async with _calling(others, plan.seed) as heard:
            rows.append(_row(what, [await callers.in_turn(seconds)], heard.statuses))
            switch.unlink()
    callers.close()
    others.close()
    return [_row("is not asked", alone, {}), *rows]


async def _until_answered(callers: Callers) -> None:
    """Returns once the model at fault before is well again."""
    outcome = Outcome(0.0)
    while not outcome.answered:
        await asyncio.sleep(_PAUSE_S)
        await callers.call(time.monotonic(), outcome)


@asynccontextmanager
async def _calling(callers: Callers, seed: int) -> AsyncIterator[Outcome]:
    """Lets several call as long as this is entered, and yields what they hear."""
    rng, outcome = random.Random(seed), Outcome(0.0)

    async def caller() -> None:
        while True:
            await callers.call(time.monotonic(), outcome)
            await asyncio.sleep(rng.uniform(0, 2 * _PAUSE_S))

    tasks = [asyncio.create_task(caller()) for _ in range(_CALLERS)]
    # Until all of them have come.
    await asyncio.sleep(_PAUSE_S)
    try:
        yield outcome
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _request(service: Service, model: str, *, cam: bool) -> bytes:
    return Job(picture.photo(512, 384), "image/jpeg", model, cam=cam).as_request(service.token)


def _row(beside: str, outcomes: Sequence[Outcome], heard: Mapping[str, int]) -> _Row:
    offered = sum(outcome.offered for outcome in outcomes)
    answered = [took_s for outcome in outcomes for took_s in outcome.answered]
    return _Row(
        beside=beside,
        calls=offered,
        failed=offered - len(answered),
        p50_ms=1000 * quantile(answered, 0.5),
        p99_ms=1000 * quantile(answered, 0.99),
        heard=dict(heard),
    )
