"""How the replica is: every part asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from camserve_server.base.clock import Clock
from camserve_server.base.tasks import ended

# A part that takes longer to say how it is does not work.
_PATIENCE_S = 1.0
# Whoever asks within that is told the same, so that anybody may ask as often as he likes.
_FRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the parts, a second old at most."""

    components: dict[str, bool]
    version: str
    uptime_s: float

    @property
    def healthy(self) -> bool:
        """Is true when every part works."""
        return all(self.components.values())


class Health:
    """Asks the parts how they are, once for all who want to know at the same time."""

    def __init__(self, probes: Mapping[str, Callable[[], Awaitable[bool]]], clock: Clock) -> None:
        self._probes = probes
        self._clock = clock
        self._started = clock.monotonic()
        self._version = version("camserve")
        self._asking: asyncio.Task[dict[str, bool]] | None = None
        self._fresh_until = 0.0

    async def report(self) -> Report:
        """Returns the state of every part."""
        if self._asking is None or (self._asking.done() and self._clock.monotonic() >= self._fresh_until):
            self._asking = asyncio.create_task(self._ask())
        # Shielded: a caller who leaves must not end it for the others.
        components = await asyncio.shield(self._asking)
        return Report(dict(components), self._version, self._clock.monotonic() - self._started)

    async def close(self) -> None:
        """Asks nobody any more."""
        if self._asking:
            await ended([self._asking])

    async def _ask(self) -> dict[str, bool]:
        works = await asyncio.gather(*(_works(probe) for probe in self._probes.values()))
        self._fresh_until = self._clock.monotonic() + _FRESH_S
        return dict(zip(self._probes, works, strict=True))


async def _works(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await probe()
    except TimeoutError:
        return False
