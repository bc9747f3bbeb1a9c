"""The thread of one model version, in which it is loaded and runs."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batch_limit import BatchLimit
from camserve_server.engine.batcher import Batch, Batcher, Entry
from camserve_server.engine.model import ModelVersion, golden_rerun
from camserve_server.engine.prediction import ModelFailedError, Result, result_of
from camserve_server.engine.rescue import Ran, run_batch

T = TypeVar("T")

# Names one loading of a version: its name, version and the load's number.
Queue = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Ended:
    """A batch that has run, with a result for every entry.

    `works` says whether the model is sound; `share` is what it had of the device, meanwhile, as far as it was its own
    version's.
    """

    batch: Batch
    results: list[tuple[Entry, Result]]
    works: bool
    seconds: float
    share: float = 1.0


class Runner:
    """Runs what the batcher has for one version, one thing at a time, in a thread that ends with the queue.

    `read` brings a folder's version to the device and never raises. `on_end` is called on the event loop. A version
    has a thread of its own so that one whose forward pass does not return holds up nobody else's. One that is loaded
    again has another queue and thread: the ones before may be waiting for a pass to return.
    """

    def __init__(
        self,
        queue: Queue,
        batcher: Batcher,
        read: Callable[[Path], ModelVersion],
        *,
        on_end: Callable[[ModelVersion, Ended], None],
        monotonic: Callable[[], float],
    ) -> None:
        """Opens the queue and starts the thread; on the event loop."""
        self._queue = queue
        self._batcher = batcher
        self._read = read
        self._on_end = on_end
        self._monotonic = monotonic
        self._loop = asyncio.get_running_loop()
        self._model: ModelVersion | None = None
        self._limit: BatchLimit | None = None
        self._under_way: tuple[Batch, float] | None = None
        batcher.open_queue(queue)
        self._thread = threading.Thread(target=self._live, name="/".join(queue[:2]), daemon=True)
        self._thread.start()

    @property
    def width(self) -> int:
        """How many batches can run at once."""
        return 1

    async def load(self, folder: Path) -> ModelVersion:
        """Returns a folder's version, which is ready or says why not; raises what stood in the way of trying."""
        return await self.call(lambda: self._read(folder))

    async def check_golden(self, folder: Path) -> ModelVersion:
        """Returns the version that it serves with what its golden inputs come to now."""
        model = self._model
        assert model is not None
        return await self.call(lambda: golden_rerun(folder, model))

    async def call(self, function: Callable[[], T]) -> T:
        """Runs the function on the thread, between batches and whoever has the device."""
        done: asyncio.Future[T] = self._loop.create_future()

        def errand() -> None:
            outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
            try:
                outcome.set_result(function())
            except Exception as error:
                outcome.set_exception(error)
            self._post(lambda: _copy(outcome, done))

        self._batcher.call(self._queue, errand)
        return await done

    def serve(self, model: ModelVersion, max_batch: int) -> None:
        """Says which version the thread has loaded, before anything is put into its queue."""
        self._model = model
        self._limit = BatchLimit(max_batch, self._monotonic)
        self._batcher.limit(self._queue, max_batch)

    def stop(self) -> None:
        """Ends the thread once what it runs has ended; nothing may be waiting for it."""
        self._batcher.close_queue(self._queue)

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread to end, and lets go of the version; returns whether it has."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        self._model = None
        return True

    def under_way(self) -> list[tuple[Batch, float]]:
        """Returns the batch that runs now, if one does, and since when its present forward pass does.

        `on_end` will be called for it after that.
        """
        running = self._under_way
        return [] if running is None else [running]

    def _live(self) -> None:
        while (work := self._batcher.take(self._queue)) is not None:
            if isinstance(work, Batch):
                self._run(work)
            else:
                work()

    def _run(self, batch: Batch) -> None:
        """Runs a batch and posts all its results at once."""
        assert self._model is not None
        model, started, ran = self._model, self._monotonic(), None
        if batch.entries:

            def note_pass() -> None:
                self._under_way = (batch, self._monotonic())

            note_pass()
            ran = run_batch(
                model, [entry.pixels for entry in batch.entries], [entry.explain for entry in batch.entries], note_pass
            )
            self._under_way = None
        self._end(batch, ran, started)

    def _end(self, batch: Batch, ran: Ran | ApiError | None, started: float, *, share: float = 1.0) -> None:
        """Posts what a batch came to; an error is every picture's, and None where it had no pictures."""
        assert self._model is not None
        model, size = self._model, len(batch.entries)
        results: list[tuple[Entry, Result]] = [(entry, ApiError(Reason.TIMEOUT_EXCEEDED)) for entry in batch.expired]
        if isinstance(ran, ApiError):
            results += [(entry, ran) for entry in batch.entries]
        elif ran is not None:
            results += [
                (entry, result_of(entry, answer, started, size) if ran.works else ModelFailedError())
                for entry, answer in zip(batch.entries, ran.answers, strict=True)
            ]
            self._adapt(size, self._monotonic() - started, ran.too_large)
        works = ran is None or (isinstance(ran, Ran) and ran.works)
        ended = Ended(batch, results, works, self._monotonic() - started, share)
        self._post(lambda: self._on_end(model, ended))

    def _adapt(self, pictures: int, seconds: float, too_large: int | None) -> None:
        assert self._limit is not None
        if too_large is None:
            self._limit.took(pictures, seconds)
        else:
            self._limit.fell_short(too_large)
        self._batcher.limit(self._queue, self._limit.pictures, self._limit.filling)

    def _post(self, callback: Callable[[], object]) -> None:
        # A loop that has been closed has nobody left to answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)


def _copy(source: concurrent.futures.Future[T], target: asyncio.Future[T]) -> None:
    if target.done():
        return
    error = source.exception()
    if error is None:
        target.set_result(source.result())
    else:
        target.set_exception(error)
