"""How many pictures of a model run together: fewer where a batch takes long, or the device is short of memory."""

from __future__ import annotations

from collections.abc import Callable

# Once may be another program's moment; twice within that is a habit.
_WATCHED_S = 60.0
_LOWERED_S = 300.0
# Whoever comes waits for the batch that runs. Where one takes longer than this the device is busy with a few pictures,
# and more of them together are no faster.
_PASS_S = 0.2
_LEAST = 4
# What those may add to a batch who only fill it up.
_FILLING_S = 0.02
# What the newest batch counts in the mean of the last ones.
_PACE_WEIGHT = 0.1


class BatchLimit:
    """The model's own limit, and lower ones.

    Four pictures or what takes 0.2 s, whichever is more; and for five minutes once memory fell short twice within one,
    half of what did not fit.
    """

    def __init__(self, largest: int, monotonic: Callable[[], float]) -> None:
        self._largest = largest
        self._monotonic = monotonic
        self._lowered = largest
        self._lowered_until = self._watched_until = float("-inf")
        self._seconds_per_picture = 0.0

    @property
    def pictures(self) -> int:
        """The largest batch now."""
        pictures = self._lowered if self._monotonic() < self._lowered_until else self._largest
        if not self._seconds_per_picture:
            return pictures
        return min(pictures, max(_LEAST, int(_PASS_S / self._seconds_per_picture)))

    @property
    def filling(self) -> int | None:
        """How many pictures may fill up a batch of others, whose answers they delay; None while no time is known."""
        return int(_FILLING_S / self._seconds_per_picture) if self._seconds_per_picture else None

    def took(self, pictures: int, seconds: float) -> None:
        """Notes how long so many took together."""
        newest = seconds / pictures
        known = self._seconds_per_picture or newest
        self._seconds_per_picture = known + _PACE_WEIGHT * (newest - known)

    def fell_short(self, pictures: int) -> None:
        """Notes that there was not memory enough for so many."""
        now = self._monotonic()
        if now < self._watched_until:
            self._lowered = max(1, min(self.pictures, pictures) // 2)
            self._lowered_until = now + _LOWERED_S
        self._watched_until = max(now, self._lowered_until) + _WATCHED_S
