"""One run: load, faults in a random order, then the reckoning."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.load import FINAL, TENANTS, Job, Ledger, Load
from tests.chaos.system import COMPONENTS, System, system
from tests.e2e.receiver import Receiver, receiver

_SETTLED_WITHIN_S = 180.0
# The next fault comes when the system answers again, or after this: faults overlap, and load goes on in between.
_ANSWERED_WITHIN_S = 6.0


@dataclass(frozen=True)
class Plan:
    """How often each component is hurt, and in which order: that of the seed."""

    seed: int
    kills: int
    pauses: int
    restarts: int

    def faults(self, rng: random.Random) -> list[tuple[str, str]]:
        counts = {"kill": self.kills, "pause": self.pauses, "restart": self.restarts}
        faults = [(fault, part) for fault, count in counts.items() for part in COMPONENTS for _ in range(count)]
        rng.shuffle(faults)
        return faults


@dataclass(frozen=True)
class Report:
    """What was done and seen; no violations is what is expected."""

    figures: dict[str, float]
    violations: list[str]


def chaos(plan: Plan, say: Callable[[str], None]) -> Report:
    """Runs the plan on a system of its own."""
    rng = random.Random(plan.seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        receiver() as seen,
        system(Path(folder) / "data", seen.place, rng) as under_test,
    ):
        return asyncio.run(_run(plan, under_test, seen, rng, say))


async def _run(
    plan: Plan, under_test: System, seen: Receiver, rng: random.Random, say: Callable[[str], None]
) -> Report:
    ledger = Ledger()
    # Its own numbers: how fast calls are answered must not change the order of the faults.
    load = Load(under_test.stack, seen, ledger, random.Random(rng.random()))
    stopping = asyncio.Event()
    faults = plan.faults(rng)
    started = time.monotonic()
    await load.open()
    running = asyncio.create_task(load.run(stopping))
    for number, (fault, component) in enumerate(faults, 1):
        await asyncio.sleep(rng.uniform(0.1, 1.5))
        await load.wait_for_answer(_ANSWERED_WITHIN_S)
        say(f"{number}/{len(faults)} {fault} {component}, {ledger.counts['jobs acknowledged']} jobs so far")
        await asyncio.to_thread(under_test.hurt, fault, component)
        if running.done():
            break
    stopping.set()
    await running
    hurt_s = time.monotonic() - started
    say("no more faults: every job must end, and every event arrive")
    settled_s = await _settled(load, ledger, seen)
    await _reckon(load, ledger, seen)
    await load.close()
    figures = dict(ledger.counts) | {
        **dict(sorted(under_test.done.items())),
        "events received": len(seen.events),
        "events, distinct": len({(event.path, event.id) for event in seen.events}),
        "seconds under faults": round(hurt_s, 1),
        "seconds until all was settled": round(settled_s, 1),
        "longest wait for an answer, s": round(ledger.longest_s, 1),
    }
    return Report(figures, ledger.violations)


async def _settled(load: Load, ledger: Ledger, seen: Receiver) -> float:
    """Returns how long it took until every job had ended and every event had come."""
    started = time.monotonic()
    while time.monotonic() - started < _SETTLED_WITHIN_S:
        for job in [job for job in ledger.jobs.values() if job.status not in FINAL]:
            await load.look(job)
        came = {(event.path, event.id) for event in list(seen.events)}
        if all(job.status in FINAL for job in ledger.jobs.values()) and _expected(ledger) <= came:
            break
        await asyncio.sleep(0.2)
    return time.monotonic() - started


def _expected(ledger: Ledger) -> set[tuple[str, str]]:
    return {(path, _event_id(job)) for job in ledger.jobs.values() for path in job.endpoints}


def _event_id(job: Job) -> str:
    return f"evt{job.job_id.removeprefix('job')}"


async def _reckon(load: Load, ledger: Ledger, seen: Receiver) -> None:
    for job in ledger.jobs.values():
        await load.look(job)
        if job.status not in FINAL:
            ledger.broken(f"{job.job_id} never ended: {job.status}")
            continue
        _reckon_items(ledger, job)
        await _reckon_stream(load, ledger, job)
    for tenant in TENANTS:
        promised = {job.job_id for job in ledger.jobs.values() if job.tenant == tenant}
        listed = await _listed(load, tenant)
        if promised - set(listed):
            ledger.broken(f"acknowledged and lost: {promised - set(listed)}")
        if set(listed) - promised or len(listed) != len(set(listed)):
            ledger.broken(f"made and not acknowledged, or listed twice: {Counter(listed) - Counter(promised)}")
    _reckon_events(ledger, seen)


def _reckon_items(ledger: Ledger, job: Job) -> None:
    """Every image of a job that was not canceled has its one outcome, the right one."""
    for at, bad in enumerate(job.broken):
        outcome = job.results.get(f"i{at}")
        if outcome is None:
            if job.status != "canceled":
                ledger.broken(f"{job.job_id} i{at} has no outcome in a job that has {job.status}")
        elif "code" in outcome:
            # An image whose worker was killed three times is given up; that is the promise, and it is counted.
            given_up = not bad and outcome["code"] == "internal"
            ledger.counts["images given up after three workers died"] += given_up
            if not given_up and (outcome["code"] != "image.invalid_format" or not bad):
                ledger.broken(f"{job.job_id} i{at} failed with {outcome['code']}")
        elif bad:
            ledger.broken(f"{job.job_id} i{at} is no image and has classes")


async def _reckon_stream(load: Load, ledger: Ledger, job: Job) -> None:
    """The stream of a job that has ended tells each outcome once."""
    answer = await load.call("GET", f"/v1/jobs/{job.job_id}/events", job.tenant)
    events = [json.loads(line.removeprefix("data:")) for line in answer.text.splitlines() if line.startswith("data:")]
    if not events:
        events = [json.loads(line) for line in answer.text.splitlines()]
    items = [event["item"]["id"] for event in events if event["event"] == "item"]
    if len(items) != len(set(items)) or set(items) != set(job.results):
        ledger.broken(f"{job.job_id} tells {items} and has {sorted(job.results)}")
    if [event["event"] for event in events].count("done") != 1 or events[-1]["event"] != "done":
        ledger.broken(f"the stream of {job.job_id} does not end once")


async def _listed(load: Load, tenant: str) -> list[str]:
    found: list[str] = []
    cursor = ""
    while True:
        params = {"limit": "200"} | ({"cursor": cursor} if cursor else {})
        page = (await load.call("GET", "/v1/jobs", tenant, params=params)).json()
        found += [job["job_id"] for job in page["jobs"]]
        cursor = page["page"].get("next_cursor", "")
        if not cursor:
            return found


def _reckon_events(ledger: Ledger, seen: Receiver) -> None:
    """Every end of a job was told to whoever wanted it, always in the same words, and nothing else was told."""
    expected = _expected(ledger)
    bodies: dict[tuple[str, str], set[bytes]] = {}
    for event in list(seen.events):
        bodies.setdefault((event.path, event.id), set()).add(event.body)
    for missing in expected - bodies.keys():
        ledger.broken(f"an event never came: {missing}")
    for unknown in bodies.keys() - expected:
        ledger.broken(f"an event about nothing that was promised: {unknown}")
    by_event = {_event_id(job): job for job in ledger.jobs.values()}
    for (path, event_id), words in bodies.items():
        job = by_event.get(event_id)
        said = json.loads(next(iter(words)))
        if len(words) != 1:
            ledger.broken(f"{event_id} said different things at {path}: {words}")
        elif job and (said["job_id"], said["event"]) != (job.job_id, f"job.{job.status}"):
            ledger.broken(f"{event_id} said {said['event']} of {said['job_id']}, which has {job.status}")
