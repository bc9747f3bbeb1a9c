"""Start-up time and idle memory of the stack with the bundled model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.processes import Memory, memory
from benchmarks.service import SHAPES, Service, write_models

REPLICA = "replica and its workers"
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Median start-up time in seconds, and the memory of the processes of each role and of the whole replica."""

    startup_s: float
    memory: dict[str, Memory]


def measure_footprint(folder: Path, shapes: Path, starts: int) -> Footprint:
    """Starts the stack `starts` times with nothing but the bundled model; the last one's memory counts."""
    models_dir = write_models(folder / "models", shapes, [SHAPES])
    seconds, found = [], {}
    for number in range(starts):
        with Service(folder / f"start-{number}", models_dir) as service:
            seconds.append(service.startup_s)
            time.sleep(_SETTLE_S)
            roles = service.pids()
            found = {role: memory(pids) for role, pids in roles.items()}
            found[REPLICA] = memory(roles["replica"] + roles["imaging worker"])
    return Footprint(median(seconds), found)
