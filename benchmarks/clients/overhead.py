"""What a client costs beside the raw stubs that it is made of: the same calls by both in turns, 32 at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan

from benchmarks.clients.caller import CLIENT, RAW, Caller
from benchmarks.processes import cpu_s


@dataclass(slots=True)
class Overhead:
    """Milliseconds a call, by the clock and of the caller's processor, in each round; raw stubs send a key too."""

    language: str
    wall_ms: dict[str, list[float]] = field(default_factory=lambda: {RAW: [], CLIENT: []})
    cpu_ms: dict[str, list[float]] = field(default_factory=lambda: {RAW: [], CLIENT: []})

    def ratios(self) -> list[float]:
        """Returns client / raw stubs by the clock, round by round."""
        return [ours / raw for raw, ours in zip(self.wall_ms[RAW], self.wall_ms[CLIENT], strict=True)]

    def cpu_ratio(self) -> float:
        """Returns client / raw stubs of the processor over all rounds, since the kernel tells it in steps of 10 ms."""
        raw_ms = sum(self.cpu_ms[RAW])
        return sum(self.cpu_ms[CLIENT]) / raw_ms if raw_ms else nan


def measure_overhead(callers: Sequence[Caller], rounds: int, calls: int) -> list[Overhead]:
    """Makes `calls` calls by each way of each language in each round, the order turning round, after a warm-up."""
    found = [Overhead(caller.language.name) for caller in callers]
    for caller in callers:
        for way in (RAW, CLIENT):
            caller.call(way, calls)
    for number in range(rounds):
        ways = (RAW, CLIENT) if number % 2 == 0 else (CLIENT, RAW)
        for caller, overhead in zip(callers, found, strict=True):
            for way in ways:
                before_s, started = cpu_s([caller.pid]), time.monotonic()
                caller.call(way, calls)
                overhead.wall_ms[way].append((time.monotonic() - started) * 1000 / calls)
                overhead.cpu_ms[way].append((cpu_s([caller.pid]) - before_s) * 1000 / calls)
    return found
