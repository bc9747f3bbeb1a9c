"""What a version has as long as it is loaded: its thread, its breaker, its places, and the calls that need it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from camserve_server.base.breaker import Breaker
from camserve_server.engine.batcher import Batch
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.runner import Runner
from camserve_server.engine.slots import FairSlots

# What the newest batch counts in the mean of the last ones.
_PACE_WEIGHT = 0.1


@dataclass(slots=True, eq=False)
class Served:
    """A loaded version; it belongs to the event loop.

    `hanging` are the batches that were given up and have not returned. `used` is when a call last came, in `monotonic`
    seconds. `ends` says that it is unloaded once no call needs it.
    """

    model: ModelVersion
    runner: Runner
    slots: FairSlots
    breaker: Breaker
    monotonic: Callable[[], float]
    used: float
    hanging: list[Batch] = field(default_factory=list)
    seconds_per_picture: float | None = None
    calls: int = 0
    ends: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._idle.set()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Surrounds a call, so that the version is not unloaded before its end."""
        self.calls += 1
        self.used = self.monotonic()
        self._idle.clear()
        try:
            yield
        finally:
            self.calls -= 1
            if not self.calls:
                self._idle.set()

    async def until_idle(self) -> None:
        """Returns when no call needs the version."""
        await self._idle.wait()

    def note_pace(self, seconds: float) -> None:
        """Takes in how long one picture of a batch took."""
        known = seconds if self.seconds_per_picture is None else self.seconds_per_picture
        self.seconds_per_picture = known + _PACE_WEIGHT * (seconds - known)
