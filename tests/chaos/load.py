"""Callers who never give up: what they were promised goes into a ledger, against which everything is checked."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.conftest import Stack
from tests.e2e.receiver import Receiver
from tests.images import encoded, star_png

TENANTS = ("alder", "birch", "cedar")
FINAL = frozenset({"succeeded", "failed", "canceled", "expired"})
NEXT = {
    "queued": {"queued", "running", *FINAL},
    "running": {"running", *FINAL},
    **{status: {status} for status in FINAL},
}
_OPEN_JOBS = 12
_ANSWER_WITHIN_S = 20.0
_BROKEN = b"no image"


@dataclass
class Job:
    """A job as it was promised, and the states in which it was seen."""

    tenant: str
    job_id: str
    broken: list[bool]
    endpoints: list[str]
    status: str = "queued"
    canceled: bool = False
    results: dict[str, Any] = field(default_factory=dict)


@dataclass
class Ledger:
    """All that was promised, and every promise that was seen broken."""

    jobs: dict[str, Job] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def broken(self, what: str) -> None:
        self.violations.append(what)

    def see(self, job: Job, seen: dict[str, Any]) -> None:
        """Compares what a job says of itself with what it said before."""
        if seen["status"] not in NEXT[job.status]:
            self.broken(f"{job.job_id} went from {job.status} to {seen['status']}")
        if job.canceled and seen["status"] != "canceled":
            self.broken(f"{job.job_id} was canceled and is {seen['status']}")
        job.status = seen["status"]


class Load:
    """Submits, cancels, looks and asks at once, as long as `run` runs; every call is repeated until it is answered."""

    def __init__(self, stack: Stack, receiver: Receiver, ledger: Ledger, rng: random.Random) -> None:
        self._receiver = receiver
        self._ledger = ledger
        self._rng = rng
        self._tokens = {tenant: stack.token(tenant=tenant) for tenant in TENANTS}
        self._client = httpx.AsyncClient(base_url=stack.edge_url, timeout=_ANSWER_WITHIN_S)
        self._picture = encoded(320, 240, "JPEG", quality=80)

    async def open(self) -> None:
        """Registers a webhook for every tenant."""
        for tenant in TENANTS:
            url = self._receiver.url(f"/hook/{tenant}")
            # The receiver fails now and then.
            self._receiver.answers[f"/hook/{tenant}"] = [
                (self._rng.choice([204, 204, 204, 500, 503]), {}) for _ in range(2_000)
            ] + [(204, {})]
            await self.call("POST", "/v1/webhooks", tenant, json={"url": url}, key=self._key())

    async def run(self, stopping: asyncio.Event) -> None:
        """Returns once `stopping` is set and every call that had begun is answered."""
        async with asyncio.TaskGroup() as group:
            for tenant in TENANTS:
                group.create_task(self._submit(tenant, stopping))
                group.create_task(self._look(tenant, stopping))
            group.create_task(self._ask(TENANTS[0], stopping))

    async def wait_for_answer(self, within_s: float) -> None:
        """Returns once the system answers, or after the time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.call("GET", "/v1/jobs", TENANTS[0], params={"limit": "1"})

    async def close(self) -> None:
        await self._client.aclose()

    async def call(self, verb: str, path: str, tenant: str, *, key: str = "", **content: Any) -> httpx.Response:
        """Returns the answer to a call that is repeated until there is one that is neither 409 nor 429 nor 5xx."""
        headers = {"authorization": f"Bearer {self._tokens[tenant]}"} | ({"idempotency-key": key} if key else {})
        started = time.monotonic()
        while True:
            try:
                answer = await self._client.request(verb, path, headers=headers, **content)
                again = answer.status_code >= 500 or answer.status_code == 429
                if not again and not (answer.status_code == 409 and _code(answer) == "idempotency.in_progress"):
                    break
            except httpx.TransportError:
                pass
            self._ledger.counts["calls repeated"] += 1
            await asyncio.sleep(0.1)
        self._ledger.longest_s = max(self._ledger.longest_s, time.monotonic() - started)
        return answer

    async def _submit(self, tenant: str, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            if sum(job.status not in FINAL for job in self._ledger.jobs.values() if job.tenant == tenant) < _OPEN_JOBS:
                job = await self._one_job(tenant)
                if self._rng.random() < 0.15:
                    await self._cancel(job)
            await asyncio.sleep(self._rng.uniform(0, 0.2))

    async def _one_job(self, tenant: str) -> Job:
        broken = [self._rng.random() < 0.2 for _ in range(self._rng.randint(1, 6))]
        inputs = [
            {"id": f"i{at}", "image": {"bytes": base64.b64encode(_BROKEN if bad else self._picture).decode()}}
            for at, bad in enumerate(broken)
        ]
        endpoints = [f"/hook/{tenant}"]
        body: dict[str, Any] = {"model": "shapes", "inputs": inputs, "metadata": {"broken": sum(broken)}}
        if self._rng.random() < 0.3:
            endpoints.append(f"/callback/{tenant}")
            body["callback_url"] = self._receiver.url(endpoints[-1])
        key = self._key()
        answer = await self.call("POST", "/v1/jobs", tenant, json=body, key=key)
        if answer.status_code != 202:
            raise RuntimeError(f"a job was refused: {answer.status_code} {answer.text}")
        job = Job(tenant, answer.json()["job_id"], broken, endpoints)
        if job.job_id in self._ledger.jobs:
            self._ledger.broken(f"{job.job_id} was promised twice")
        self._ledger.jobs[job.job_id] = job
        self._ledger.counts["jobs acknowledged"] += 1
        self._ledger.counts["images"] += len(broken)
        if self._rng.random() < 0.2:
            again = await self.call("POST", "/v1/jobs", tenant, json=body, key=key)
            self._ledger.counts["submissions sent again"] += 1
            if again.json() != answer.json():
                self._ledger.broken(f"{job.job_id} was answered otherwise the second time: {again.text}")
        return job

    async def _cancel(self, job: Job) -> None:
        await asyncio.sleep(self._rng.uniform(0, 0.5))
        answer = await self.call("DELETE", f"/v1/jobs/{job.job_id}", job.tenant)
        if answer.status_code == 200:
            self._ledger.see(job, answer.json())
            job.canceled = True
            self._ledger.counts["jobs canceled"] += 1
        elif _code(answer) != "job.already_completed":
            self._ledger.broken(f"{job.job_id} could not be canceled: {answer.text}")

    async def _look(self, tenant: str, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            mine = [job for job in self._ledger.jobs.values() if job.tenant == tenant]
            for job in [job for job in mine if job.status not in FINAL] + mine[-3:]:
                await self.look(job)
            await asyncio.sleep(0.1)

    async def look(self, job: Job) -> None:
        """Compares a job and its results with what was seen of them before."""
        seen = await self.call("GET", f"/v1/jobs/{job.job_id}", job.tenant)
        if seen.status_code != 200:
            self._ledger.broken(f"{job.job_id} is lost: {seen.status_code} {seen.text}")
            return
        self._ledger.see(job, seen.json())
        listed = await self.call("GET", f"/v1/jobs/{job.job_id}/results", job.tenant)
        for item in listed.json()["items"]:
            result = item.get("result", item.get("error"))
            # The id of an error's call is that of the call that asks.
            known = {name: value for name, value in result.items() if name != "request_id"} if result else None
            before = job.results.setdefault(item["id"], known) if known else job.results.get(item["id"])
            if before != known:
                self._ledger.broken(f"the result of {job.job_id} {item['id']} changed: {before} became {known}")

    async def _ask(self, tenant: str, stopping: asyncio.Event) -> None:
        """Interactive calls under keys: however often they are sent they are one call."""
        while not stopping.is_set():
            key = self._key()
            body = {"model": "shapes", "image": {"bytes": base64.b64encode(star_png()).decode()}}
            first = await self.call("POST", "/v1/infer", tenant, json=body, key=key)
            again = await self.call("POST", "/v1/infer", tenant, json=body, key=key)
            self._ledger.counts["calls under a key"] += 1
            if again.json() != first.json():
                self._ledger.broken(f"a call was answered twice: {first.text} and {again.text}")
            await asyncio.sleep(self._rng.uniform(0, 0.5))

    def _key(self) -> str:
        return f"key-{self._rng.getrandbits(64):016x}"


def _code(answer: httpx.Response) -> str:
    code: str = answer.json()["error"]["code"]
    return code
