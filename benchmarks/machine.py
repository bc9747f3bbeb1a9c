"""The machine that the figures are of, and how busy others keep it."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("torch", "grpcio", "pillow", "numpy", "grad-cam")


def describe() -> str:
    """Returns processor, cores, system and the versions that matter, in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    parts = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return f"{names[0] if names else platform.machine()}, {cores} cores; Python {platform.python_version()}, {parts}"


def busy_cores(seconds: float = 1.0) -> float:
    """Returns how many cores are in use, on average over the next `seconds`: by others, as we only wait."""
    before, started = _busy_ticks(), time.monotonic()
    time.sleep(seconds)
    return (_busy_ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - started)


def _busy_ticks() -> int:
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = (
        int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return user + nice + system + irq + softirq + steal
