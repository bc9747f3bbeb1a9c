"""How fast a worker is while it has work."""

from __future__ import annotations

from camserve_server.base.clock import Clock

# A window long enough for a few batches on a slow machine, short enough to follow a change of load.
_WINDOW_S = 10.0


class Pace:
    """Measures finished items per second of the time in which items were under way."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._under_way = 0
        self._finished = 0
        self._busy_s = 0.0
        self._since = 0.0
        self._per_s = 0.0

    @property
    def per_s(self) -> float:
        """Items per second, 0 while nothing was measured; the last figure holds while there is no work."""
        return self._per_s

    def begin(self) -> None:
        """Notes that an item began."""
        self._count()
        self._under_way += 1

    def end(self, *, finished: bool) -> None:
        """Notes that an item ended, finished or not."""
        self._count()
        self._under_way -= 1
        self._finished += finished
        if self._finished and self._busy_s > 0:
            self._per_s = self._finished / self._busy_s
        if self._busy_s > _WINDOW_S:
            # Half of the past is forgotten: a smooth figure from two numbers.
            self._busy_s /= 2
            self._finished //= 2

    def _count(self) -> None:
        now = self._clock.monotonic()
        if self._under_way:
            self._busy_s += now - self._since
        self._since = now
