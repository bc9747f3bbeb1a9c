"""Callers of the edge: open-loop ones, whose requests leave at their times, and those who wait for each answer."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

_TIMEOUT_S = 30.0
_REFUSALS = (429, 503)


@dataclass(slots=True)
class Outcome:
    """What became of the requests; times are in seconds from when a request was due."""

    seconds: float
    offered: int = 0
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    without_retry_after: int = 0

    @property
    def goodput(self) -> float:
        """Answers of status 200 per second."""
        return len(self.answered) / self.seconds


def quantile(values: Sequence[float], share: float) -> float:
    """Returns the value below which that share of the values lies, NaN where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Callers:
    """Sends one HTTP/1.1 request over and over, from as many connections as are needed."""

    def __init__(self, port: int, request: bytes, *, seed: int) -> None:
        self._port = port
        self._request = request
        self._random = random.Random(seed)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, rate: float, seconds: float) -> Outcome:
        """Returns the outcome of Poisson arrivals at `rate` a second."""
        outcome = Outcome(seconds)
        started = time.monotonic()
        calls: set[asyncio.Task[None]] = set()
        due = started
        while (due := due + self._random.expovariate(rate)) < started + seconds:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            outcome.offered += 1
            call = asyncio.create_task(self.call(due, outcome))
            calls.add(call)
            call.add_done_callback(calls.discard)
        if calls:
            await asyncio.wait(calls)
        return outcome

    async def in_turn(self, seconds: float, *, callers: int = 1) -> Outcome:
        """Returns the outcome of callers who wait for each answer."""
        outcome, ends = Outcome(seconds), time.monotonic() + seconds

        async def caller() -> None:
            while time.monotonic() < ends:
                outcome.offered += 1
                await self.call(time.monotonic(), outcome)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return outcome

    def close(self) -> None:
        """Closes the connections."""
        for _, writer in self._idle:
            writer.close()

    async def call(self, due: float, outcome: Outcome) -> None:
        """Sends one request that was due at that time, and notes what became of it."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                status, headers = await self._ask()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            outcome.statuses[type(error).__name__] += 1
            return
        took = time.monotonic() - due
        outcome.statuses[str(status)] += 1
        if status == 200:
            outcome.answered.append(took)
        elif status in _REFUSALS:
            outcome.refused.append(took)
            outcome.without_retry_after += b"\nretry-after: " not in headers

    async def _ask(self) -> tuple[int, bytes]:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(self._request)
            head = await reader.readuntil(b"\r\n\r\n")
            headers = head.lower()
            length = int(headers.partition(b"content-length: ")[2].split(b"\r", 1)[0] or 0)
            await reader.readexactly(length)
        except BaseException:
            writer.close()
            raise
        if b"\nconnection: close" in headers:
            # As a refusal is answered that came before the whole body had left.
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head.split(b" ", 2)[1]), headers
