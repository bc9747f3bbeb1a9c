"""The actors of one model version: started, lent to batches, replaced, and as many as the load needs."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import ray.exceptions
import structlog

from camserve_server.engine.batcher import Entry
from camserve_server.engine.golden import GoldenState
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.rescue import Ran

_log = structlog.get_logger("cluster")

# How often it is seen whether batches wait for want of actors, and in how many of the last looks they must have.
_LOOK_S = 0.25
_LOOKS = 8
_STARVED = 6
# An actor that was needed once may be needed again: it starts for seconds.
_IDLE_S = 60.0
# Without any actor for so long the version counts as failing: longer than one takes to be replaced.
_PATIENCE_S = 10.0
# An actor that finds no room, or does not come up, within this is given up, and tried again after a pause.
_START_S = 60.0
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 30.0
_ANSWER_S = 1.0


class LostError(Exception):
    """The actor died, or its answer is lost with its node."""


class SlowError(Exception):
    """The actor did not answer in time."""


class Actor:
    """An actor, and the thread here that waits for its answers."""

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.idle_since = time.monotonic()
        self._errands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._live, name="actor", daemon=True).start()

    def do(self, errand: Callable[[], None]) -> None:
        """Has the thread do something with the actor."""
        self._errands.put(errand)

    def run(self, entries: list[Entry], timeout_s: float) -> Ran:
        """Runs a batch; raises LostError and SlowError."""
        pictures = np.stack([entry.pixels for entry in entries])
        ran: Ran = _got(self.handle.run.remote(pictures, [entry.explain for entry in entries]), timeout_s)
        return ran

    def check_golden(self, timeout_s: float) -> tuple[GoldenState, str | None]:
        """Runs the golden inputs; raises LostError and SlowError."""
        found: tuple[GoldenState, str | None] = _got(self.handle.check_golden.remote(), timeout_s)
        return found

    def end(self) -> None:
        """Ends the actor, and the thread after what it does."""
        self._errands.put(None)
        # Whether it is there still does not matter, nor whether Ray is.
        with contextlib.suppress(ray.exceptions.RayError, RuntimeError):
            ray.kill(self.handle)

    def _live(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand()


class ActorPool:
    """From `least` to `most` actors, one more where batches keep waiting, one fewer where it has been idle for long.

    `start` makes an actor's handle. `waits` says whether pictures wait. Actors that are lost are replaced by new ones,
    not by Ray's restarts: so there is one way for those that died, hung, or serve other files than the first. The
    one used last is lent first, so that those that are not needed stay idle. Every method is safe from any thread.
    """

    def __init__(self, start: Callable[[], Any], *, least: int, most: int, waits: Callable[[], bool]) -> None:
        self._start = start
        self._least = least
        self._most = most
        self._waits = waits
        self._changed = threading.Condition()
        self._shut = threading.Event()
        self._actors: list[Actor] = []
        self._idle: list[Actor] = []
        self._wanted = 0
        self._none_since = 0.0
        self._content_hash = ""
        self._keeper: threading.Thread | None = None

    @property
    def size(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    def open(self) -> ModelVersion:
        """Starts the first actor, and the others once the version is ready; returns it without its module.

        Waits for as long as the cluster has no room. Raises RayError when the actor dies, LostError once the pool is
        shut.
        """
        handle = self._start()
        try:
            model = self._described(handle, None)
        except BaseException:
            with contextlib.suppress(ray.exceptions.RayError, RuntimeError):
                ray.kill(handle)
            raise
        actor = Actor(handle)
        if model.state != "ready":
            actor.end()
            return model
        self._content_hash = model.content_hash
        self._wanted = self._least
        self._add(actor)
        self._keeper = threading.Thread(target=self._keep, name="actors", daemon=True)
        self._keeper.start()
        return model

    def until_idle(self) -> None:
        """Returns when an actor is idle, when there has been none for long, and when the pool is shut or not open."""
        with self._changed:
            while self._wanted and not self._idle and not self._shut.is_set() and not self._is_away():
                self._changed.wait(_LOOK_S)

    def lease(self, timeout_s: float) -> Actor | None:
        """Lends an actor, which is to come back by `give_back` or `discard`; None when there is none in time."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while not self._idle:
                left_s = until - time.monotonic()
                if self._shut.is_set() or self._is_away() or left_s <= 0:
                    return None
                self._changed.wait(min(left_s, _LOOK_S))
            return self._idle.pop()

    def give_back(self, actor: Actor) -> None:
        """Takes an actor back that works."""
        with self._changed:
            actor.idle_since = time.monotonic()
            self._idle.append(actor)
            self._changed.notify_all()

    def discard(self, actor: Actor) -> None:
        """Ends an actor, which is replaced."""
        with self._changed:
            if actor not in self._actors:
                return
            self._actors.remove(actor)
            if actor in self._idle:
                self._idle.remove(actor)
            if not self._actors:
                self._none_since = time.monotonic()
            self._changed.notify_all()
        actor.end()

    def sift(self) -> None:
        """Discards the idle actors that are gone too, as those of a node that was lost are."""
        with self._changed:
            asked = {actor.handle.answers.remote(): actor for actor in self._idle}
        answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_ANSWER_S) if asked else ([], [])
        for reference in answered:
            try:
                ray.get(reference)
            except ray.exceptions.RayError:
                self.discard(asked[reference])

    def shut(self) -> None:
        """Ends every wait here."""
        self._shut.set()
        with self._changed:
            self._changed.notify_all()

    def close(self, timeout_s: float) -> None:
        """Ends the actors, those at work once they have answered or the time is up."""
        self.shut()
        until = time.monotonic() + timeout_s
        with self._changed:
            while len(self._idle) < len(self._actors) and time.monotonic() < until:
                self._changed.wait(until - time.monotonic())
            left, self._actors, self._idle = self._actors, [], []
        for actor in left:
            actor.end()
        if self._keeper:
            # It may be looking at an actor that starts, which takes a moment.
            self._keeper.join()

    def _is_away(self) -> bool:
        return not self._actors and time.monotonic() - self._none_since >= _PATIENCE_S

    def _add(self, actor: Actor) -> bool:
        with self._changed:
            if self._shut.is_set():
                return False
            self._actors.append(actor)
            self._idle.append(actor)
            self._changed.notify_all()
            return True

    def _keep(self) -> None:
        """Replaces what is lost, and sees how many are needed; one step at a time, in a thread of its own."""
        starved: deque[bool] = deque(maxlen=_LOOKS)
        pause_s = _FIRST_PAUSE_S
        while not self._shut.wait(_LOOK_S):
            starved.append(not self._idle and self._waits())
            if sum(starved) >= _STARVED and self._wanted < self._most and len(self._actors) == self._wanted:
                self._wanted += 1
            missing = self._wanted - len(self._actors)
            if missing > 0:
                starved.clear()
                if self._started(missing):
                    pause_s = _FIRST_PAUSE_S
                    continue
                self._wanted = max(self._least, len(self._actors))
                self._shut.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            elif self._wanted > self._least and (idle := self._longest_idle()):
                self._wanted -= 1
                self.discard(idle)

    def _longest_idle(self) -> Actor | None:
        with self._changed:
            idle = self._idle[0] if self._idle else None
        return idle if idle and time.monotonic() - idle.idle_since > _IDLE_S else None

    def _started(self, number: int) -> bool:
        """Starts so many actors at once; returns whether all have come."""
        handles: list[Any] = []
        came = 0
        until = time.monotonic() + _START_S
        try:
            handles += [self._start() for _ in range(number)]
            while handles:
                model = self._described(handles[0], until)
                if model.state != "ready" or model.content_hash != self._content_hash:
                    _log.error("an actor would serve something else", model=model.name, version=model.version)
                    break
                actor = Actor(handles.pop(0))
                if not self._add(actor):
                    actor.end()
                    break
                came += 1
        except (ray.exceptions.RayError, LostError, SlowError) as error:
            if not self._shut.is_set():
                _log.warning("an actor does not start", error=type(error).__name__)
        for handle in handles:
            with contextlib.suppress(ray.exceptions.RayError, RuntimeError):
                ray.kill(handle)
        return came == number

    def _described(self, handle: Any, until: float | None) -> ModelVersion:
        reference = handle.describe.remote()
        try:
            while not ray.wait([reference], timeout=_LOOK_S)[0]:
                if self._shut.is_set():
                    raise LostError
                if until is not None and time.monotonic() > until:
                    raise SlowError
            model: ModelVersion = ray.get(reference)
        except SystemExit:
            raise LostError from None
        return model


def _got(reference: Any, timeout_s: float) -> Any:
    try:
        return ray.get(reference, timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        raise SlowError from None
    # Ray ends threads that wait when it is left.
    except (ray.exceptions.RayError, SystemExit) as error:
        raise LostError from error
