"""How many pictures of a model run together while the device is short of memory."""

from __future__ import annotations

from collections.abc import Callable

# Once may be another program's moment; twice within that is a habit.
_WATCHED_S = 60.0
_LOWERED_S = 300.0


class BatchLimit:
    """The model's own limit, and a lower one for five minutes once memory fell short twice within one."""

    def __init__(self, largest: int, monotonic: Callable[[], float]) -> None:
        self._largest = largest
        self._monotonic = monotonic
        self._lowered = largest
        self._lowered_until = self._watched_until = float("-inf")

    @property
    def pictures(self) -> int:
        """The largest batch now."""
        return self._lowered if self._monotonic() < self._lowered_until else self._largest

    def fell_short(self, pictures: int) -> None:
        """Notes that there was not memory enough for so many."""
        now = self._monotonic()
        if now < self._watched_until:
            self._lowered = max(1, min(self.pictures, pictures) // 2)
            self._lowered_until = now + _LOWERED_S
        self._watched_until = max(now, self._lowered_until) + _WATCHED_S
