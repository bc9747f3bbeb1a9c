"""A clock that tests set, and a chance that they know."""

from __future__ import annotations

import random


class FakeClock:
    """Time passes only while somebody sleeps; `slept` lists for how long."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


class Longest(random.Random):
    """Always takes the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b
