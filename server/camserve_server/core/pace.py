"""How fast a worker is while it has work."""

from __future__ import annotations

from dataclasses import dataclass

from camserve_server.base.clock import Clock

# A window long enough for a few batches on a slow machine, short enough to follow a change of load.
_WINDOW_S = 10.0


@dataclass(slots=True)
class _Meter:
    finished: float = 0.0
    seconds: float = 0.0
    per_s: float = 0.0

    def pass_time(self, seconds: float) -> None:
        if self.seconds > _WINDOW_S:
            # Half of the past is forgotten: a smooth figure from two numbers.
            self.seconds /= 2
            self.finished /= 2
        self.seconds += seconds

    def note(self, finished: bool) -> None:
        self.finished += finished
        if self.finished and self.seconds > 0:
            self.per_s = self.finished / self.seconds


class Pace:
    """Measures finished items per second of the time in which items were worked on.

    Those that wait for somebody else, as for an image's origin, are not worked on. The time with `many` and more in
    hand says how fast the worker can be; the rest, in which it mostly waits for single ones, counts only until then.
    """

    def __init__(self, clock: Clock, *, many: int) -> None:
        self._clock = clock
        self._least = many
        self._in_hand = 0
        self._since = 0.0
        self._few, self._many = _Meter(), _Meter()
        self._latest = self._few

    @property
    def per_s(self) -> float:
        """Items per second, 0 while nothing was measured; the last figure holds while there is no work."""
        return self._many.per_s or self._few.per_s

    def begin(self) -> None:
        """Notes that an item is worked on from now on."""
        self._count()
        self._in_hand += 1

    def end(self, *, finished: bool) -> None:
        """Notes that it no longer is, finished or not."""
        self._count()
        self._in_hand -= 1
        # A batch ends all at once: its items belong to the time before.
        self._latest.note(finished)

    def _count(self) -> None:
        now = self._clock.monotonic()
        if self._in_hand and now > self._since:
            self._latest = self._many if self._in_hand >= self._least else self._few
            self._latest.pass_time(now - self._since)
        self._since = now
