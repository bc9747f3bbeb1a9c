"""Start-up time and idle memory of the stack with the bundled model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.processes import memory_mb
from benchmarks.service import SHAPES, Service, write_models

REPLICA_ROLES = ("replica", "imaging worker")
_SETTLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Median start-up time in seconds; by role, (resident, proportional) memory in MB of all its processes."""

    startup_s: float
    memory_mb: dict[str, tuple[float, float]]

    def replica_mb(self) -> tuple[float, float]:
        """Returns resident and proportional memory of the replica and its workers."""
        parts = [self.memory_mb[role] for role in REPLICA_ROLES]
        return sum(rss for rss, _ in parts), sum(pss for _, pss in parts)


def measure_footprint(folder: Path, shapes: Path, starts: int) -> Footprint:
    """Starts the stack `starts` times with nothing but the bundled model; the last one's memory counts."""
    models_dir = write_models(folder / "models", shapes, [SHAPES])
    seconds, memory = [], {}
    for number in range(starts):
        with Service(folder / f"start-{number}", models_dir) as service:
            seconds.append(service.startup_s)
            time.sleep(_SETTLE_S)
            memory = {role: _sum_mb(pids) for role, pids in service.pids().items()}
    return Footprint(median(seconds), memory)


def _sum_mb(pids: list[int]) -> tuple[float, float]:
    sizes = [memory_mb(pid) for pid in pids]
    return sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes)
