"""Batches of one model version, handed to its actors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batcher import Batch, Batcher, Entry
from camserve_server.engine.cluster.pool import Actor, ActorPool, LostError, SlowError
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.runner import Ended, Queue, Runner

_log = structlog.get_logger("cluster")

# Actors that die of a batch one after the other die of its pictures.
_TRIES = 3
# What a batch without a deadline waits for another actor when its own has died.
_PATIENCE_S = 30.0
_LAST_BATCH_S = 3.0
_RETRY_S = 1


class ClusterRunner(Runner):
    """Runs what the batcher has for one version on the actors of a pool, as many batches at once as there are actors.

    A batch is taken when an actor is idle, so that those that wait are as large as they can be. Where its actor dies
    the batch is run again by another one, which changes nothing, as predictions have no effects.
    """

    def __init__(
        self,
        queue: Queue,
        batcher: Batcher,
        pool: Callable[[Path], ActorPool],
        *,
        pass_deadline_s: float,
        on_end: Callable[[ModelVersion, Ended], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`pool` makes the pool of a folder's version, which is not open yet."""
        self._new_pool = pool
        self._pool: ActorPool | None = None
        self._stopped = False
        self._pass_deadline_s = pass_deadline_s
        self._adapting = threading.Lock()
        super().__init__(queue, batcher, self._open, on_end=on_end, monotonic=monotonic)

    @property
    def width(self) -> int:
        """How many batches can run at once."""
        return self._pool.size if self._pool else 0

    async def check_golden(self, folder: Path) -> ModelVersion:
        """Returns the version that it serves with what its golden inputs come to now."""
        return await self.call(self._rechecked)

    def stop(self) -> None:
        """Ends the thread and the actors once what they run has ended; nothing may be waiting for them."""
        self._shut()
        super().stop()

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread to end."""
        self._shut()
        return super().join(timeout_s)

    def _shut(self) -> None:
        self._stopped = True
        if self._pool:
            self._pool.shut()

    def _open(self, folder: Path) -> ModelVersion:
        self._pool = self._new_pool(folder)
        if self._stopped:
            self._pool.shut()
        return self._pool.open()

    def _live(self) -> None:
        try:
            while True:
                if self._pool:
                    self._pool.until_idle()
                work = self._batcher.take(self._queue)
                if work is None:
                    return
                if isinstance(work, Batch):
                    self._run(work)
                else:
                    work()
        finally:
            if self._pool:
                self._pool.close(_LAST_BATCH_S)

    def _run(self, batch: Batch) -> None:
        assert self._pool is not None
        started = self._monotonic()
        if not batch.entries:
            self._end(batch, None, started)
        elif actor := self._pool.lease(self._patience_s(batch.entries)):
            actor.do(partial(self._run_on, actor, batch, started))
        else:
            self._end(batch, _without_actors(), started)

    def _run_on(self, first: Actor, batch: Batch, started: float) -> None:
        assert self._pool is not None
        pool, actor, tries = self._pool, first, 0
        while True:
            tries += 1
            try:
                ran = actor.run(batch.entries, self._deadline_s(batch.entries))
            except SlowError:
                _log.error("a forward pass hangs", model=self._queue[0], version=self._queue[1])
                pool.discard(actor)
                # One of these may be to blame, so it counts as an attempt of a job's image.
                self._end(batch, ApiError(Reason.TIMEOUT_EXCEEDED), started)
                return
            except LostError as error:
                _log.warning("an actor died", model=self._queue[0], version=self._queue[1], error=str(error.__cause__))
                pool.discard(actor)
                pool.sift()
                batch = Batch(batch.queue, [entry for entry in batch.entries if not entry.future.done()], batch.expired)
                if not batch.entries:
                    self._end(batch, None, started)
                    return
                other = pool.lease(self._patience_s(batch.entries)) if tries < _TRIES else None
                if other is None:
                    self._end(batch, _without_actors(), started)
                    return
                actor = other
            else:
                pool.give_back(actor)
                with self._adapting:
                    self._end(batch, ran, started)
                return

    def _rechecked(self) -> ModelVersion:
        assert self._pool is not None
        assert self._model is not None
        actor = self._pool.lease(_PATIENCE_S)
        if actor is None:
            raise _without_actors()
        try:
            golden, reason = actor.check_golden(_PATIENCE_S)
        except (LostError, SlowError):
            self._pool.discard(actor)
            raise _without_actors() from None
        self._pool.give_back(actor)
        return replace(self._model, golden=golden, golden_reason=reason)

    def _deadline_s(self, entries: list[Entry]) -> float:
        """Returns the time for every forward pass that the batch may need: one for each layer, and one without."""
        layers = {entry.explain.layer for entry in entries if entry.explain}
        return self._pass_deadline_s * (len(layers) + 1)

    def _patience_s(self, entries: list[Entry]) -> float:
        """Returns how long somebody waits for the batch at most."""
        deadlines = [entry.deadline_monotonic for entry in entries]
        ends = [self._monotonic() + _PATIENCE_S if deadline is None else deadline for deadline in deadlines]
        return min(_PATIENCE_S, max(ends) - self._monotonic())


def _without_actors() -> ApiError:
    return ApiError(Reason.CIRCUIT_OPEN, retry_after_s=_RETRY_S)
