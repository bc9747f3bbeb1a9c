"""How many calls that wait for their answer may be under way: so many that the last of them does not wait long."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from camserve_server.base.errors import ApiError, Reason

# What the pace remembers, in answers: a few batches, so that it follows a device that others use too.
_MEMORY = 64
_ENOUGH = 16.0
# So long that a tenant's flood of one model does not refuse its calls for another one, which it calls now and then.
_LATELY_S = 600.0
_REMEMBERED = 10_000


def _unknown(_: Any) -> None:
    """Says of no version how fast it is."""


class NoRoomError(ApiError):
    """A call that was not let in; `hopeless` as `Gate.hopeless` says it of its tenant."""

    def __init__(self, *, hopeless: bool) -> None:
        super().__init__(Reason.SERVICE_OVERLOADED)
        self.hopeless = hopeless


@dataclass(slots=True)
class _Lane:
    """Calls of one model version under way by tenant, when each tenant called last, and how fast calls were answered
    when there were many.
    """

    running: Counter[str] = field(default_factory=Counter)
    called: dict[str, float] = field(default_factory=dict)
    answers: float = 0.0
    seconds: float = 0.0
    last_busy: float | None = None


class Gate:
    """Lets calls in, for each model version by itself.

    A version takes as many as it answers in `wait_s`, as long as that is between `least`, which keeps the device busy,
    and `most`. `pace` says how many its device does in a second, None where that is not known; what else takes time
    shows once it had many calls. When that many are under way, a tenant with less than its share of them still comes
    in, so that one that sends too many fills its own share and not everybody's.
    """

    def __init__(
        self,
        *,
        wait_s: float,
        least: int,
        most: int,
        monotonic: Callable[[], float],
        pace: Callable[[Any], float | None] = _unknown,
    ) -> None:
        self._wait_s = wait_s
        self._least = least
        self._most = max(least, most)
        self._monotonic = monotonic
        self._pace = pace
        self._lanes: defaultdict[Hashable, _Lane] = defaultdict(_Lane)

    @property
    def under_way(self) -> int:
        """How many calls hold a place now; may be asked from any thread."""
        return sum(lane.running.total() for lane in tuple(self._lanes.values()))

    def forget(self, version: Hashable) -> None:
        """Forgets what is known of a version that is gone."""
        self._lanes.pop(version, None)

    def limit(self, version: Hashable) -> int:
        """Returns how many calls the version takes now."""
        lane = self._lanes[version]
        device_per_s = self._pace(version)
        per_s = math.inf if device_per_s is None else device_per_s
        if lane.answers >= _ENOUGH and lane.seconds:
            # A batch's answers come together: where calls are many only now and then, they look faster than the device.
            per_s = min(per_s, lane.answers / lane.seconds)
        return round(min(self._most, max(self._least, per_s * self._wait_s)))

    def check(self, version: Hashable, tenant: str) -> None:
        """Raises NoRoomError where `entered` would."""
        lane = self._lanes[version]
        if len(lane.called) >= _REMEMBERED:
            lane.called.clear()
        lane.called[tenant] = self._monotonic()
        if not self._has_room(version, lane, tenant):
            raise NoRoomError(hopeless=self.hopeless(tenant))

    def hopeless(self, tenant: str) -> bool:
        """Whether a call of the tenant is refused whatever version it is for, of those that it called lately."""
        now = self._monotonic()
        lately = [
            (version, lane)
            for version, lane in self._lanes.items()
            if now - lane.called.get(tenant, -math.inf) < _LATELY_S
        ]
        return bool(lately) and not any(self._has_room(version, lane, tenant) for version, lane in lately)

    def _has_room(self, version: Hashable, lane: _Lane, tenant: str) -> bool:
        limit = self.limit(version)
        under_way = lane.running.total()
        if under_way < limit:
            return True
        share = limit // len(lane.running.keys() | {tenant})
        return lane.running[tenant] < share and under_way < 2 * limit

    @contextmanager
    def entered(self, version: Hashable, tenant: str) -> Iterator[None]:
        """Holds a place for a call; raises NoRoomError when there is none."""
        self.check(version, tenant)
        lane = self._lanes[version]
        lane.running[tenant] += 1
        try:
            yield
        finally:
            self._note_end(lane)
            lane.running[tenant] -= 1
            if not lane.running[tenant]:
                del lane.running[tenant]

    def _note_end(self, lane: _Lane) -> None:
        # With fewer under way it is the callers who set the pace.
        if lane.running.total() < self._least:
            lane.last_busy = None
            return
        now = self._monotonic()
        if lane.last_busy is not None:
            fade = 1 - 1 / _MEMORY
            lane.answers = fade * lane.answers + 1
            lane.seconds = fade * lane.seconds + (now - lane.last_busy)
        lane.last_busy = now
