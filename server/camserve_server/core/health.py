"""How the replica is: every part asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version

from camserve_server.base.clock import Clock

# A part that takes longer to say how it is does not work.
_PATIENCE_S = 3.0


@dataclass(frozen=True, slots=True)
class Report:
    """The state of the parts at one moment."""

    components: dict[str, bool]
    version: str
    uptime_s: float

    @property
    def healthy(self) -> bool:
        """Is true when every part works."""
        return all(self.components.values())


class Health:
    """Asks the parts how they are."""

    def __init__(self, probes: Mapping[str, Callable[[], Awaitable[bool]]], clock: Clock) -> None:
        self._probes = probes
        self._clock = clock
        self._started = clock.monotonic()
        self._version = version("camserve")

    async def report(self) -> Report:
        """Returns the state of every part."""
        works = await asyncio.gather(*(_works(probe) for probe in self._probes.values()))
        components = dict(zip(self._probes, works, strict=True))
        return Report(components, self._version, self._clock.monotonic() - self._started)


async def _works(probe: Callable[[], Awaitable[bool]]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await probe()
    except TimeoutError:
        return False
