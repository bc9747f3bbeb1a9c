"""Queues of predictions waiting for the device, and the rule which of them run next."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from camserve_server.base.breaker import Turn
from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.inference import Explain
from camserve_server.engine.slots import Rotation

Lane = Literal["unary", "stream"]
Errand = Callable[[], None]

# With unary callers always waiting, each ninth place goes to the stream lane, so that streams
# slow down and do not stop.
_UNARY_STREAK = 8


@dataclass(slots=True, eq=False)
class Entry:
    """One picture waiting for its prediction.

    `pixels` is (H, W, 3) uint8 owned by the entry; `cost` is in forwards, for the tenants'
    fairness; `turn` is its leave to use the model; times are `monotonic` seconds.
    """

    queue: Hashable
    pixels: NDArray[np.uint8]
    explain: Explain | None
    tenant: str
    lane: Lane
    deadline_monotonic: float | None
    enqueued_monotonic: float
    future: asyncio.Future[Any]
    cost: float = 1.0
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries of one queue to run together, and those found past their deadline."""

    queue: Hashable
    entries: list[Entry]
    expired: list[Entry]


class FairLane:
    """Entries of one lane; next is the tenant that cost the device least lately, see Rotation."""

    def __init__(self) -> None:
        self._waiting: Rotation[Entry] = Rotation(cost=lambda entry: entry.cost)

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, entry: Entry) -> None:
        """Puts the entry behind its tenant's others."""
        self._waiting.push(entry.tenant, entry)

    def pop(self) -> Entry:
        """Takes the next entry; KeyError when there is none."""
        return self._waiting.pop()

    def discard(self, entry: Entry) -> None:
        """Takes the entry out if it is here."""
        self._waiting.discard(entry.tenant, entry)

    def oldest_monotonic(self) -> float:
        """Returns when the entry that waits longest came; infinity when there is none."""
        return min((entry.enqueued_monotonic for entry in self._waiting.heads()), default=float("inf"))


class _Queue:
    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch
        self.lanes: dict[Lane, FairLane] = {"unary": FairLane(), "stream": FairLane()}
        self._streak = 0

    def __len__(self) -> int:
        return len(self.lanes["unary"]) + len(self.lanes["stream"])

    def oldest_monotonic(self) -> float:
        return min(lane.oldest_monotonic() for lane in self.lanes.values())

    def pop(self) -> Entry:
        unary, stream = self.lanes["unary"], self.lanes["stream"]
        if unary and not (stream and self._streak >= _UNARY_STREAK):
            self._streak += 1
            return unary.pop()
        self._streak = 0
        return stream.pop()


class Batcher:
    """Collects entries on the event loop and hands them to the device thread as batches.

    Queues (one per model version) take turns, so a flood on one does not hold up another. A batch
    is due when it is full or its oldest entry has waited `delay_s`; with 0 whatever waits when
    the device is free makes the batch. The unary lane is bounded by `queue_limit` entries, the
    stream lane by its callers. Every method is safe from any thread.
    """

    def __init__(self, *, max_batch: int, delay_s: float, queue_limit: int, monotonic: Callable[[], float]) -> None:
        self._max_batch = max_batch
        self._delay_s = delay_s
        self._queue_limit = queue_limit
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._errands: deque[Errand] = deque()
        self._closed = False

    def open_queue(self, queue: Hashable, max_batch: int | None = None) -> None:
        """Makes a queue, with a smaller largest batch where the model cannot take more."""
        with self._changed:
            self._queues[queue] = _Queue(min(max_batch or self._max_batch, self._max_batch))

    def limit(self, queue: Hashable, max_batch: int) -> None:
        """Changes the largest batch of a queue, from its next one on."""
        with self._changed:
            self._queues[queue].max_batch = max_batch

    def drain(self, queue: Hashable) -> list[Entry]:
        """Takes out and returns what waits in one queue."""
        with self._changed:
            waiting = self._queues[queue]
            return [waiting.pop() for _ in range(len(waiting))]

    def put(self, entry: Entry) -> None:
        """Queues the entry.

        Raises ApiError SERVICE_OVERLOADED when the unary lane is full, SERVICE_DRAINING when closed.
        """
        with self._changed:
            if entry.lane == "unary":
                self._check_open(entry.queue)
            elif self._closed:
                raise ApiError(Reason.SERVICE_DRAINING)
            self._queues[entry.queue].lanes[entry.lane].push(entry)
            self._changed.notify()

    def discard(self, entry: Entry) -> None:
        """Forgets an entry whose caller has left, if it still waits."""
        with self._changed:
            self._queues[entry.queue].lanes[entry.lane].discard(entry)

    def call(self, errand: Errand) -> None:
        """Queues something else for the device thread, ahead of every batch."""
        with self._changed:
            self._errands.append(errand)
            self._changed.notify()

    def depth(self, queue: Hashable) -> int:
        """Returns how many entries wait in the queue."""
        with self._changed:
            return len(self._queues[queue]) if queue in self._queues else 0

    def due_in_s(self) -> float | None:
        """Returns how long until a batch is due: 0 for now, None when nothing waits."""
        with self._changed:
            now = self._monotonic()
            waits = [self._queue_wait_s(queue, now) for queue in self._queues.values() if len(queue)]
            return min(waits, default=None)

    def close(self) -> list[Entry]:
        """Ends `take` and returns the entries that still waited."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            return [queue.pop() for queue in self._queues.values() for _ in range(len(queue))]

    def take(self) -> Batch | Errand | None:
        """Waits for work: the next errand or due batch; None once closed. For the device thread."""
        with self._changed:
            while not self._closed:
                if self._errands:
                    return self._errands.popleft()
                wait_s = self.due_in_s()
                if wait_s == 0:
                    return self._next_batch()
                self._changed.wait(wait_s)
            return None

    def _check_open(self, queue: Hashable) -> None:
        if self._closed:
            raise ApiError(Reason.SERVICE_DRAINING)
        if len(self._queues[queue].lanes["unary"]) >= self._queue_limit:
            raise ApiError(Reason.SERVICE_OVERLOADED)

    def _queue_wait_s(self, queue: _Queue, now: float) -> float:
        if len(queue) >= queue.max_batch or not self._delay_s:
            return 0.0
        return max(0.0, queue.oldest_monotonic() + self._delay_s - now)

    def _next_batch(self) -> Batch:
        now = self._monotonic()
        name = next(name for name, queue in self._queues.items() if len(queue) and not self._queue_wait_s(queue, now))
        self._queues.move_to_end(name)
        queue = self._queues[name]
        batch = Batch(name, [], [])
        while len(queue) and len(batch.entries) < queue.max_batch:
            entry = queue.pop()
            if entry.future.cancelled():
                continue
            late = entry.deadline_monotonic is not None and now >= entry.deadline_monotonic
            (batch.expired if late else batch.entries).append(entry)
        return batch
