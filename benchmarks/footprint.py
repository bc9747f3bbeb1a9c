"""Start-up time and idle memory of the stack with the bundled model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import median

from benchmarks.processes import Memory, cpu_s, memory
from benchmarks.service import SHAPES, Service, write_models

REPLICA = "replica and its workers"
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Median start-up time in seconds, and the memory of the processes of each role and of the whole replica.

    `idle_cpu_s` is the processor time that all of them take in a minute in which nobody calls.
    """

    startup_s: float
    memory: dict[str, Memory]
    idle_cpu_s: float


def measure_footprint(folder: Path, shapes: Path, starts: int, idle_s: float) -> Footprint:
    """Starts the stack `starts` times with nothing but the bundled model; the last one counts, idle for `idle_s`."""
    models_dir = write_models(folder / "models", shapes, [SHAPES])
    seconds, found, idle_cpu_s = [], {}, nan
    for number in range(starts):
        with Service(folder / f"start-{number}", models_dir) as service:
            seconds.append(service.startup_s)
            time.sleep(_SETTLE_S)
            roles = service.pids()
            found = {role: memory(pids) for role, pids in roles.items()}
            found[REPLICA] = memory(roles["replica"] + roles["imaging worker"])
            if number == starts - 1:
                everything = [pid for pids in roles.values() for pid in pids]
                before_s = cpu_s(everything)
                time.sleep(idle_s)
                idle_cpu_s = (cpu_s(everything) - before_s) * 60 / idle_s
    return Footprint(median(seconds), found, idle_cpu_s)
