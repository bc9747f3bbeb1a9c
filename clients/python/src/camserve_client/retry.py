"""When a call is tried again, and after how long."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from camserve_client.errors import CamserveError
from camserve_client.lifetime import Lifetime

T = TypeVar("T")


class Clock(Protocol):
    """Tells time and waits; another one in tests."""

    def now(self) -> float:
        """Returns seconds since some moment."""

    async def sleep(self, seconds: float) -> None:
        """Waits."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Returns seconds since some moment; no change of the wall clock moves it."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Waits without holding up the event loop."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter: a random time up to `first_s`, which grows by `factor` up to `cap_s`.

    Where the service says when to come again (`Retry-After`), the random time is added to that.
    """

    first_s: float = 0.5
    factor: float = 2.0
    cap_s: float = 30.0

    def window_s(self, failures: int) -> float:
        """Returns the longest random wait after that many failures, 1 or more."""
        # An exponent without bound would overflow.
        return min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))


@dataclass(frozen=True, slots=True)
class Retries:
    """Tries calls again as `backoff` says."""

    backoff: Backoff = field(default_factory=Backoff)
    clock: Clock = field(default_factory=SystemClock)
    rng: random.Random = field(default_factory=random.Random)
    lifetime: Lifetime = field(default_factory=Lifetime)

    def started(self, timeout_s: float | None) -> Tries:
        """Returns the state of a call that begins now and may take that long in all; None is without end."""
        return Tries(self, timeout_s, None if timeout_s is None else self.clock.now() + timeout_s)

    async def run(self, attempt: Callable[[Tries], Awaitable[T]], *, timeout_s: float | None, repeatable: bool) -> T:
        """Returns what `attempt` does, which asks how many seconds are left to it.

        Raises the last CamserveError when it cannot pass, when `repeatable` is false, or when the next attempt would
        begin after `timeout_s`.
        """
        tries = self.started(timeout_s)
        while True:
            try:
                return await attempt(tries)
            except CamserveError as error:
                if not repeatable:
                    raise
                await tries.pause_after(error)


class Tries:
    """Counts the failures of one call and knows how much time is left."""

    def __init__(self, retries: Retries, timeout_s: float | None, ends: float | None) -> None:
        self._retries = retries
        self._timeout_s = timeout_s
        self._ends = ends
        self._failures = 0

    @property
    def left_s(self) -> float | None:
        """How many seconds are left, 0 at least; None is without end."""
        return None if self._ends is None else max(0.0, self._ends - self._retries.clock.now())

    @property
    def again(self) -> bool:
        """Is true once an attempt has failed."""
        return self._failures > 0

    def forget(self) -> None:
        """Forgets the failures: something came through."""
        self._failures = 0

    def restart(self) -> None:
        """Begins again: failures are forgotten and all of the time is left."""
        self.forget()
        if self._timeout_s is not None:
            self._ends = self._retries.clock.now() + self._timeout_s

    async def pause_after(self, error: CamserveError) -> None:
        """Waits until the next attempt; raises `error`, or that the client was closed, when there is none."""
        if not error.retryable:
            raise error
        self._failures += 1
        pause_s = (error.retry_after_s or 0.0) + self._retries.rng.uniform(
            0, self._retries.backoff.window_s(self._failures)
        )
        if self.left_s is not None and pause_s >= self.left_s:
            raise error
        async with self._retries.lifetime.waiting():
            await self._retries.clock.sleep(pause_s)
