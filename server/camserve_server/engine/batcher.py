"""Queues of predictions waiting for the device, and the rule which of them run next, and when."""

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


@dataclass(frozen=True, slots=True, eq=False)
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

    def had(self) -> float:
        """Returns what the tenant that is next cost the device lately; infinity when nobody waits."""
        return self._waiting.had()

    def discard(self, entry: Entry) -> None:
        """Takes the entry out if it is here."""
        self._waiting.discard(entry.tenant, entry)

    def oldest_monotonic(self) -> float:
        """Returns when the entry that waits longest came; infinity when there is none."""
        return min((entry.enqueued_monotonic for entry in self._waiting.heads()), default=float("inf"))


class _Queue:
    def __init__(self, max_batch: int, lock: threading.RLock) -> None:
        self.max_batch = max_batch
        self.max_filling = max_batch
        self.changed = threading.Condition(lock)
        self.errands: deque[Errand] = deque()
        self.busy = False
        self.began: float | None = None
        self.lanes: dict[Lane, FairLane] = {"unary": FairLane(), "stream": FairLane()}
        self._streak = 0

    def __len__(self) -> int:
        return len(self.lanes["unary"]) + len(self.lanes["stream"])

    def oldest_monotonic(self) -> float:
        return min(lane.oldest_monotonic() for lane in self.lanes.values())

    def head(self) -> tuple[Lane, float]:
        """Returns the lane of the next entry, and what its tenant cost the device lately."""
        stream_waits = len(self.lanes["stream"]) > 0
        unary_next = len(self.lanes["unary"]) > 0 and not (stream_waits and self._streak >= _UNARY_STREAK)
        lane: Lane = "unary" if unary_next else "stream"
        return lane, self.lanes[lane].had()

    def fills(self, first: tuple[Lane, float]) -> bool:
        """Whether the next entry would wait behind those of whom `first` is one, were there no room in their batch."""
        (first_lane, first_had), (lane, had) = first, self.head()
        return first_lane == "unary" if lane != first_lane else had > first_had + self.max_batch

    def pop(self) -> Entry:
        lane, _ = self.head()
        self._streak = self._streak + 1 if lane == "unary" else 0
        return self.lanes[lane].pop()


class Batcher:
    """Collects entries on the event loop and hands them to the threads of their queues as batches.

    Each queue (one per model version) has a thread. Queues take turns at the device, so a flood
    on one does not hold up another; a batch has the device to itself for `turn_s`, and after that
    others run beside it. A batch is due when it is full or its oldest entry has waited `delay_s`;
    with 0 whatever waits when the device is free makes the batch. Calls are filled up with entries
    of streams, and those of who asked for little with those of who had much, as far as `limit` says:
    everyone in a batch waits for all of it. The unary lane is bounded by `queue_limit` entries, the
    stream lane by its callers. Every method is safe from any thread.
    """

    def __init__(
        self,
        *,
        max_batch: int,
        delay_s: float,
        queue_limit: int,
        turn_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._max_batch = max_batch
        self._delay_s = delay_s
        self._queue_limit = queue_limit
        self._turn_s = turn_s
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._queues: OrderedDict[Hashable, _Queue] = OrderedDict()
        self._closed = False

    def open_queue(self, queue: Hashable) -> None:
        """Makes a queue, whose thread is to come for its work soon."""
        with self._lock:
            self._queues[queue] = _Queue(self._max_batch, self._lock)

    def close_queue(self, queue: Hashable) -> None:
        """Forgets a queue that has no entries, and ends its thread's `take`."""
        with self._lock:
            self._queues.pop(queue).changed.notify()
            self._wake()

    def limit(self, queue: Hashable, max_batch: int, max_filling: int | None = None) -> None:
        """Changes the largest batch of a queue, if it is still there, and how many may fill it up, from its next on."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].max_batch = min(max_batch, self._max_batch)
                self._queues[queue].max_filling = self._max_batch if max_filling is None else max_filling

    def drain(self, queue: Hashable) -> list[Entry]:
        """Takes out and returns what waits in one queue."""
        with self._lock:
            waiting = self._queues[queue]
            drained = [waiting.pop() for _ in range(len(waiting))]
            self._wake()
            return drained

    def put(self, entry: Entry) -> None:
        """Queues the entry.

        Raises ApiError SERVICE_OVERLOADED when the unary lane is full, SERVICE_DRAINING when closed, MODEL_UNAVAILABLE
        when there is no such queue any more.
        """
        with self._lock:
            if entry.queue not in self._queues:
                raise ApiError(Reason.MODEL_UNAVAILABLE, retry_after_s=1)
            if entry.lane == "unary":
                self._check_open(entry.queue)
            elif self._closed:
                raise ApiError(Reason.SERVICE_DRAINING)
            queue = self._queues[entry.queue]
            queue.lanes[entry.lane].push(entry)
            queue.changed.notify()

    def discard(self, entry: Entry) -> None:
        """Forgets an entry whose caller has left, if it still waits."""
        with self._lock:
            if entry.queue in self._queues:
                self._queues[entry.queue].lanes[entry.lane].discard(entry)
                self._wake()

    def call(self, queue: Hashable, errand: Errand) -> None:
        """Gives the queue's thread something else to do, ahead of its batches and whoever has the device."""
        with self._lock:
            self._queues[queue].errands.append(errand)
            self._queues[queue].changed.notify()

    def depth(self, queue: Hashable) -> int:
        """Returns how many entries wait in the queue."""
        with self._lock:
            return len(self._queues[queue]) if queue in self._queues else 0

    def oldest_s(self, queue: Hashable) -> float:
        """Returns how long the entry waits that waits longest; 0 where none does."""
        with self._lock:
            waiting = self._queues.get(queue)
            return self._monotonic() - waiting.oldest_monotonic() if waiting is not None and len(waiting) else 0.0

    def due_in_s(self, queue: Hashable) -> float | None:
        """Returns how long until the queue's next batch may run: 0 for now, None when others must move first."""
        with self._lock:
            now, asked = self._monotonic(), self._queues[queue]
            if not len(asked):
                return None
            wait_s = self._fills_in_s(asked, now) or self._device_in_s(asked, now)
            return wait_s if wait_s > 0 or self._next(now) == queue else None

    def close(self) -> list[Entry]:
        """Ends every `take` and returns the entries that still waited."""
        with self._lock:
            self._closed = True
            for queue in self._queues.values():
                queue.changed.notify()
            return [queue.pop() for queue in self._queues.values() for _ in range(len(queue))]

    def take(self, queue: Hashable, began: Callable[[], float | None] = lambda: None) -> Batch | Errand | None:
        """Waits for the queue's next errand, or batch with its turn at the device; None once closed.

        For the queue's thread. It ends the turn that the last call gave, unless a batch still runs that `began` then.
        """
        with self._lock:
            if queue in self._queues:
                taker = self._queues[queue]
                taker.busy, taker.began = False, began()
                self._wake()
            while queue in self._queues and not self._closed:
                if taker.errands:
                    taker.busy = True
                    self._wake()
                    return taker.errands.popleft()
                wait_s = self.due_in_s(queue)
                if wait_s == 0:
                    return self._next_batch(queue)
                taker.changed.wait(wait_s)
            return None

    def ended(self, queue: Hashable, began: Callable[[], float | None]) -> None:
        """Says that one of several batches of the queue has ended, and when the oldest of the others `began`."""
        with self._lock:
            if queue in self._queues:
                self._queues[queue].began = began()
                self._wake()

    def _wake(self) -> None:
        """Lets those who may be next look again; those with nothing to run need not."""
        for queue in self._queues.values():
            if len(queue):
                queue.changed.notify()

    def _check_open(self, queue: Hashable) -> None:
        if self._closed:
            raise ApiError(Reason.SERVICE_DRAINING)
        if len(self._queues[queue].lanes["unary"]) >= self._queue_limit:
            raise ApiError(Reason.SERVICE_OVERLOADED)

    def _fills_in_s(self, queue: _Queue, now: float) -> float:
        if len(queue) >= queue.max_batch or not self._delay_s:
            return 0.0
        return max(0.0, queue.oldest_monotonic() + self._delay_s - now)

    def _device_in_s(self, queue: _Queue, now: float) -> float:
        """Returns when every other batch has had the device for its turn."""
        turns = [other.began for other in self._queues.values() if other is not queue and other.began is not None]
        return max((began + self._turn_s - now for began in turns if began + self._turn_s > now), default=0.0)

    def _next(self, now: float) -> Hashable | None:
        """Returns the queue whose turn is longest ago, of those that have a batch and a thread to run it."""
        due = (
            name
            for name, queue in self._queues.items()
            if len(queue) and not queue.busy and not self._fills_in_s(queue, now)
        )
        return next(due, None)

    def _next_batch(self, name: Hashable) -> Batch:
        now, queue = self._monotonic(), self._queues[name]
        self._queues.move_to_end(name)
        queue.busy, queue.began = True, now
        batch = Batch(name, [], [])
        first, filling = queue.head(), 0
        while len(queue) and len(batch.entries) < queue.max_batch:
            if not batch.entries:
                first = queue.head()
            elif queue.fills(first):
                if filling >= queue.max_filling:
                    break
                filling += 1
            entry = queue.pop()
            if entry.future.cancelled():
                continue
            late = entry.deadline_monotonic is not None and now >= entry.deadline_monotonic
            (batch.expired if late else batch.entries).append(entry)
        self._wake()
        return batch
