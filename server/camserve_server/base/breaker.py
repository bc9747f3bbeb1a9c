"""Circuit breakers: a part that keeps failing is left alone for a while, and then one call tries it."""

from __future__ import annotations

import contextlib
import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from enum import IntEnum
from functools import partial

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import CIRCUIT_STATE, CIRCUITS_OPEN

_log = structlog.get_logger("breaker")

Monotonic = Callable[[], float]
# Says of an exception whether the part is to blame; None when it tells nothing about the part.
Blame = Callable[[Exception], bool | None]


class CircuitState(IntEnum):
    """The numbers are those of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Turn:
    """One call's leave to use the part. The first of its three ends counts, and none does after the state changed."""

    def __init__(self, breaker: Breaker, period: int) -> None:
        self._breaker = breaker
        self._period: int | None = period

    def succeeded(self) -> bool:
        """The part works; returns whether that counted."""
        return self._end(self._breaker._note_success)

    def failed(self) -> bool:
        """The part is to blame for a failure; returns whether that counted."""
        return self._end(self._breaker._note_failure)

    def left(self) -> bool:
        """Nothing became known; a turn to try the part goes to the next call. Returns whether that counted."""
        return self._end(self._breaker._hand_on)

    def _end(self, note: Callable[[], None]) -> bool:
        period, self._period = self._period, None
        if period is None or period != self._breaker._period:
            return False
        note()
        return True


class Breaker:
    """Opens after `failures` in a row, for `pause_s`; then one call at a time tries, and each failure doubles that.

    Failures in a row and not a share of them: what fails now and then is tried again at less cost than refusing those
    calls that would succeed, and a part that is away fails every call. A call that was given up after `patience_s`
    counts as failed, because whoever calls a part that hangs leaves before it answers; a try that takes longer no
    longer keeps others from trying.

    It holds no lock: its methods and those of its turns belong to one thread, the event loop's.
    """

    def __init__(
        self,
        part: str,
        name: str = "",
        *,
        monotonic: Monotonic,
        failures: int = 5,
        pause_s: float = 1.0,
        longest_s: float = 30.0,
        patience_s: float = 5.0,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """`part` and `name` show in logs and metrics; with `on_change` the metric is the caller's affair."""
        self.patience_s = patience_s
        self._part = part
        self._name = name
        self._monotonic = monotonic
        self._failures = failures
        self._first_pause_s = pause_s
        self._longest_s = longest_s
        self._on_change = on_change or self._show
        self._state = CircuitState.CLOSED
        self._period = 0
        self._failed = 0
        self._pause_s = pause_s
        self._until = 0.0
        self._held_since: float | None = None
        self._on_change()

    @property
    def state(self) -> CircuitState:
        """What the breaker does now; open lasts until a call tries."""
        return self._state

    @property
    def lets_through(self) -> bool:
        """Is true when a call that came now would not be refused."""
        return self._state is CircuitState.CLOSED or self._wait_s() <= 0

    def check(self) -> None:
        """Raises ApiError(CIRCUIT_OPEN) where `enter` would, and takes no turn."""
        if not self.lets_through:
            raise self.refusal()

    def refusal(self) -> ApiError:
        """Returns the error of a call that is refused now; its hint is when the part is tried next."""
        # How long a try takes nobody knows.
        wait_s = self._wait_s() if self._state is CircuitState.OPEN else 0
        return ApiError(Reason.CIRCUIT_OPEN, retry_after_s=max(1, math.ceil(wait_s)))

    def enter(self) -> Turn:
        """Returns a turn, which must be ended; raises ApiError(CIRCUIT_OPEN) while the part is left alone."""
        self.check()
        if self._state is not CircuitState.CLOSED:
            self._change(CircuitState.HALF_OPEN, self.patience_s)
        return Turn(self, self._period)

    def join(self) -> Turn:
        """Returns a turn of work that is under way and never refused; its end counts only if it could enter."""
        return self.enter() if self.lets_through else Turn(self, -1)

    def hold(self) -> None:
        """Opens at once and lets nobody try until `release`: the part hangs."""
        self._held_since = self._monotonic()
        self._change(CircuitState.OPEN, 0)

    def release(self) -> None:
        """Ends `hold`: the next call tries."""
        self._held_since = None
        self._change(CircuitState.OPEN, 0)

    def forget(self) -> None:
        """Takes the part, which is no more, out of the metrics."""
        self._on_change = _nothing
        CIRCUIT_STATE.remove(self._part, self._name)

    @contextlib.contextmanager
    def guard(self, blame: Blame, *, under_way: bool = False) -> Iterator[Turn]:
        """Surrounds a call: it enters, or joins where the work is under way, and ends the turn as the call ended.

        The call may end its turn itself.
        """
        turn = self.join() if under_way else self.enter()
        try:
            with self.patience(turn):
                yield turn
        except Exception as error:
            blamed = blame(error)
            if blamed is None:
                turn.left()
            elif blamed:
                turn.failed()
            else:
                turn.succeeded()
            raise
        except BaseException:
            turn.left()
            raise
        turn.succeeded()

    @contextlib.contextmanager
    def patience(self, turn: Turn) -> Iterator[None]:
        """Surrounds a wait for the part; one that is given up after `patience_s` ends the turn as failed."""
        began = self._monotonic()
        try:
            yield
        except Exception:
            raise
        except BaseException:
            if self._monotonic() - began >= self.patience_s:
                turn.failed()
            raise

    def _wait_s(self) -> float:
        now = self._monotonic()
        if self._held_since is None:
            return self._until - now
        # What has hung for long may do so for as long again.
        return min(max(self._first_pause_s, now - self._held_since), self._longest_s)

    def _note_success(self) -> None:
        self._failed = 0
        self._pause_s = self._first_pause_s
        if self._state is not CircuitState.CLOSED:
            self._change(CircuitState.CLOSED, 0)

    def _note_failure(self) -> None:
        if self._state is CircuitState.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, self._longest_s)
        else:
            self._failed += 1
            if self._failed < self._failures:
                return
        self._change(CircuitState.OPEN, self._pause_s)

    def _hand_on(self) -> None:
        if self._state is CircuitState.HALF_OPEN:
            self._change(CircuitState.OPEN, 0)

    def _change(self, state: CircuitState, for_s: float) -> None:
        # What began before tells nothing about the part as it is now.
        self._period += 1
        self._until = self._monotonic() + for_s
        if (CircuitState.CLOSED in (state, self._state)) and self._name:
            _log.warning("circuit", part=self._part, name=self._name, state=state.name.lower())
        self._state = state
        self._on_change()

    def _show(self) -> None:
        CIRCUIT_STATE.labels(self._part, self._name).set(self._state)


def _nothing() -> None:
    """Shows nothing."""


class Breakers:
    """A breaker for each of many places, such as origins, made when it is asked for.

    At most `most` are kept, those used last: a place that is forgotten is called again. Places are named neither in
    logs nor in metrics.
    """

    def __init__(
        self,
        part: str,
        *,
        monotonic: Monotonic,
        failures: int = 5,
        pause_s: float = 1.0,
        longest_s: float = 30.0,
        patience_s: float = 5.0,
        most: int = 4096,
    ) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Breaker] = OrderedDict()
        self._failing: dict[Hashable, Breaker] = {}
        self._make: Callable[[Hashable], Breaker] = lambda place: Breaker(
            part,
            monotonic=monotonic,
            failures=failures,
            pause_s=pause_s,
            longest_s=longest_s,
            patience_s=patience_s,
            on_change=partial(self._sort, place),
        )
        # Asked on the thread of the metrics: a place that nobody tries any more leaves when its pause is over.
        CIRCUITS_OPEN.labels(part).set_function(lambda: len(self.left_alone()))

    def __getitem__(self, place: Hashable) -> Breaker:
        """Returns the breaker of a place."""
        if place not in self._kept:
            self._kept[place] = self._make(place)
        self._kept.move_to_end(place)
        if len(self._kept) > self._most:
            forgotten, _ = self._kept.popitem(last=False)
            self._sort(forgotten)
        return self._kept[place]

    def left_alone(self) -> Set[Hashable]:
        """Returns the places that are not to be called when it is asked; a look costs no more for many."""
        return _LeftAlone(self._failing)

    def _sort(self, place: Hashable) -> None:
        breaker = self._kept.get(place)
        if breaker is None or breaker.state is CircuitState.CLOSED:
            self._failing.pop(place, None)
        else:
            self._failing[place] = breaker


class _LeftAlone(Set[Hashable]):
    def __init__(self, failing: Mapping[Hashable, Breaker]) -> None:
        self._failing = failing

    def __contains__(self, place: object) -> bool:
        breaker = self._failing.get(place)
        return breaker is not None and not breaker.lets_through

    def __iter__(self) -> Iterator[Hashable]:
        # On another thread the metrics ask.
        return (place for place in list(self._failing) if place in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
