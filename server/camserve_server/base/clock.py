"""Time, behind a protocol so that tests can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Returns unix time in seconds."""

    def monotonic(self) -> float:
        """Returns seconds that never go backwards, comparable within the process only."""


class SystemClock:
    """Tells the machine's time."""

    def now(self) -> float:
        """Returns unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Returns seconds that never go backwards, comparable within the process only."""
        return time.monotonic()
