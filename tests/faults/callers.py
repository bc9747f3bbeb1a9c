"""Callers who keep calling while something breaks, and what they heard."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from tests.faults import retries
from tests.images import star_png

INFER, KEYED, JOB = "infer", "infer with a key", "job"
BROKEN = "broken connection"
# What a caller may hear while a part is away, each with the time after which to come again.
_REFUSALS = frozenset(
    {
        *("store.unavailable", "upstream.failed", "circuit.open", "model.unavailable", "service.overloaded"),
        *("service.draining", "idempotency.in_progress", "rate.exceeded"),
    }
)


@dataclass(frozen=True)
class Heard:
    """One answer: when it came, how long it took, its status and the error's code; a broken connection has 0."""

    kind: str
    at: float
    took_s: float
    status: int
    code: str = ""
    retry_after: bool = False

    @property
    def answered(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return self.code in _REFUSALS and self.retry_after


@dataclass
class Callers:
    """Callers at one address; `heard` fills while they call, and `jobs` with those that were accepted."""

    url: str
    token: str
    model: str = "shapes"
    seed: int = 1
    pause_s: float = 0.05
    timeout_s: float = 30.0
    options: dict[str, Any] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._image = {"bytes": base64.b64encode(star_png()).decode()}

    @asynccontextmanager
    async def calling(self, kinds: Sequence[str], *, retry: bool = False) -> AsyncIterator[None]:
        """Lets one caller for each kind call as long as this is entered; with `retry`, as the documentation says."""
        stopping = asyncio.Event()
        limits = httpx.Limits(max_connections=None)
        headers = {"authorization": f"Bearer {self.token}"}
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=self.timeout_s, limits=limits, trust_env=False
        ) as client:
            tasks = [asyncio.create_task(self._call(client, kind, stopping, retry=retry)) for kind in kinds]
            try:
                yield
            finally:
                stopping.set()
                await asyncio.gather(*tasks)

    async def until(self, count: int, *, since: float = 0.0) -> None:
        """Returns once so many calls were answered since then; a test's time limit ends a hopeless wait."""
        while sum(one.answered for one in self.heard if one.at > since) < count:
            await asyncio.sleep(0.02)

    def count(self, *, since: float = 0.0) -> Counter[str]:
        """Returns how many calls of each outcome there were."""
        return Counter(one.code or str(one.status) for one in self.heard if one.at > since)

    async def lost_jobs(self, within_s: float) -> list[str]:
        """Returns the accepted jobs that have not ended after that time."""
        headers = {"authorization": f"Bearer {self.token}"}
        left, ends = list(self.jobs), time.monotonic() + within_s
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=self.timeout_s) as client:
            while left and time.monotonic() < ends:
                answer = await client.get(f"/v1/jobs/{left[-1]}")
                if answer.status_code == 200 and answer.json()["status"] not in ("queued", "running"):
                    left.pop()
                else:
                    await asyncio.sleep(0.1)
        return left

    async def _call(self, client: httpx.AsyncClient, kind: str, stopping: asyncio.Event, *, retry: bool) -> None:
        while not stopping.is_set():
            verb, path, request = self._request(kind)
            started = time.monotonic()
            try:
                if retry:
                    answer = await retries.call(client, self._rng, verb, path, **request)
                else:
                    answer = await client.request(verb, path, **request)
                heard = (answer.status_code, _code(answer), "retry-after" in answer.headers)
                if answer.status_code == 202:
                    self.jobs.append(answer.json()["job_id"])
            except httpx.TransportError:
                heard = (0, BROKEN, False)
            now = time.monotonic()
            self.heard.append(Heard(kind, now, now - started, *heard))
            await asyncio.sleep(self._rng.uniform(0, 2 * self.pause_s))

    def _request(self, kind: str) -> tuple[str, str, dict[str, Any]]:
        headers = {} if kind == INFER else {"idempotency-key": str(uuid4())}
        body: dict[str, Any] = {"model": self.model}
        if kind == JOB:
            body["inputs"] = [{"id": "a", "image": self._image}]
        else:
            body |= {"image": self._image} | self.options
        return "POST", "/v1/jobs" if kind == JOB else "/v1/infer", {"json": body, "headers": headers}


def _code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"]) if answer.status_code >= 400 else ""
