"""Shares of the imaging workers whose pictures take long, and how many workers those may have."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

# What an ordinary picture takes at most, and how long a share is known for one that took longer.
_SLOW_S: Final = 1.0
_REMEMBERED_S: Final = 10.0
# Without a quick picture for so long there is nobody to keep a worker for.
_QUIET_S: Final = 30.0


class SharePace:
    """Knows which shares are slow: they may have every worker but one, while others send pictures too.

    A decoder that is at work cannot be interrupted, so that without this two hostile pictures would hold up everybody.
    """

    def __init__(self, workers: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most_slow = max(1, workers - 1)
        self._monotonic = monotonic
        self._running: Counter[str] = Counter()
        self._since: dict[str, list[float]] = {}
        self._slow_until: dict[str, float] = {}
        self._quick_at = float("-inf")

    def may_run(self, share: str) -> bool:
        """Whether a call of the share may have a worker now."""
        now = self._monotonic()
        if not self._is_slow(share, now) or now - self._quick_at >= _QUIET_S:
            return True
        busy = sum(count for other, count in self._running.items() if self._is_slow(other, now))
        return busy < self._most_slow

    @contextmanager
    def call(self, share: str) -> Iterator[None]:
        """Surrounds a call that has a worker."""
        started = self._monotonic()
        self._running[share] += 1
        self._since.setdefault(share, []).append(started)
        try:
            yield
        finally:
            self._since[share].remove(started)
            self._running[share] -= 1
            if not self._running[share]:
                del self._running[share], self._since[share]
            now = self._monotonic()
            if now - started > _SLOW_S:
                self._slow_until = {other: until for other, until in self._slow_until.items() if until > now}
                self._slow_until[share] = now + _REMEMBERED_S
            elif share not in self._slow_until:
                self._quick_at = now

    def _is_slow(self, share: str, now: float) -> bool:
        return self._slow_until.get(share, 0.0) > now or any(
            now - started > _SLOW_S for started in self._since.get(share, ())
        )
