"""How fast the kit calls: always slower than its tenant may."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LONGEST_WAIT_S = 30


def pause_of(retry_after: str) -> float:
    """Returns the seconds of a Retry-After; infinite for none, and for one that is longer than the kit waits."""
    return float(retry_after) if retry_after.isdigit() and int(retry_after) <= _LONGEST_WAIT_S else math.inf


class Pace:
    """Lets calls go one after the other at a rate, and only so many at once.

    `set_limits` is called once the tenant's are known, while no call is under way; until then no rate is kept.
    """

    def __init__(self, at_once: int) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._pause_s = 0.0
        self._next = 0.0

    def set_limits(self, *, per_second: float, at_once: int) -> None:
        """Allows so many calls a second, above 0, and so many at once, above 0."""
        self._pause_s = 1 / per_second
        self._places = asyncio.Semaphore(at_once)

    def wait_until(self, pause_s: float) -> None:
        """Holds every call back for so many seconds, since one was told to come again then."""
        self._next = max(self._next, time.monotonic() + pause_s)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Waits for a place and for the time of the next call."""
        async with self._places:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._pause_s
            await asyncio.sleep(start - now)
            yield
