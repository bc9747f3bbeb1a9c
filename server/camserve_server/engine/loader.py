"""Versions brought into memory and out of it again, each with a thread of its own."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from camserve_server.base.breaker import Breaker
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended as all_ended
from camserve_server.base.telemetry import ENGINE_OLDEST_SECONDS, ENGINE_QUEUE, ENGINE_WIDTH
from camserve_server.engine.batcher import Batcher
from camserve_server.engine.device import empty_cache
from camserve_server.engine.folders import Key
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.prediction import settle
from camserve_server.engine.runner import Ended, Queue, Runner
from camserve_server.engine.served import Served
from camserve_server.engine.slots import FairSlots

# Batches that failed in a row, each confirmed with a picture of ours: few, since nothing else is to blame.
_FAILURES = 3
# A picture that tries a model may wait for the device behind other models.
_PATIENCE_S = 10.0
NewRunner = Callable[[Queue, Callable[[ModelVersion, Ended], None]], Runner]

# A batch that runs when its version is unloaded may finish; one that hangs ends its thread when it returns.
_LAST_BATCH_S = 3.0


class Loader:
    """Holds what is loaded; its methods belong to the event loop.

    `new_runner` makes what loads and runs a version, and calls back after each of its batches. `on_end` is called on
    the event loop after each batch of a loaded version, `on_unload` with the name and version of which nothing is
    loaded any more.
    """

    def __init__(
        self,
        batcher: Batcher,
        new_runner: NewRunner,
        *,
        max_batch: int,
        queue_limit: int,
        on_end: Callable[[Served, Ended], None],
        on_unload: Callable[[Key], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._batcher = batcher
        self._new_runner = new_runner
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._on_end = on_end
        self._on_unload = on_unload
        self._monotonic = monotonic
        self._numbers = itertools.count(1)
        self._served: dict[Queue, Served] = {}
        self._ends: set[asyncio.Task[None]] = set()

    def served(self, model: ModelVersion) -> Served:
        """Returns what a loaded version has; raises ApiError(MODEL_UNAVAILABLE) when it is loaded no longer."""
        found = self._served.get(model.queue)
        if found is None:
            raise ApiError(Reason.MODEL_UNAVAILABLE, retry_after_s=1)
        return found

    def all(self) -> list[Served]:
        """Returns everything that takes memory, what is about to end too."""
        return list(self._served.values())

    async def load(self, folder: Path) -> ModelVersion:
        """Returns the version of a folder; one that is ready can be predicted with from now on.

        Raises what its thread raises, such as RuntimeError of a device that is gone.
        """
        queue = (folder.parent.name, folder.name, next(self._numbers))
        runner = self._new_runner(queue, self._finish)
        try:
            model = replace(await runner.load(folder), load_number=queue[2])
        except BaseException:
            runner.stop()
            raise
        if model.state != "ready":
            runner.stop()
            return model
        runner.serve(model, model.max_batch or self._max_batch)
        breaker = Breaker(
            "engine",
            "/".join(model.key),
            monotonic=self._monotonic,
            failures=_FAILURES,
            patience_s=_PATIENCE_S,
        )
        slots = FairSlots(self._queue_limit)
        self._served[queue] = Served(
            model,
            runner,
            slots,
            breaker,
            self._monotonic,
            used=self._monotonic(),
            seconds_per_picture=model.seconds_per_picture,
        )
        ENGINE_QUEUE.labels(*model.key).set_function(lambda: self._batcher.depth(queue))
        ENGINE_OLDEST_SECONDS.labels(*model.key).set_function(lambda: self._batcher.oldest_s(queue))
        ENGINE_WIDTH.labels(*model.key).set_function(lambda: runner.width)
        return model

    def unload(self, model: ModelVersion) -> None:
        """Begins to end a version that no new call is given: calls under way finish first."""
        served = self._served.get(model.queue)
        if served and not served.ends:
            served.ends = True
            task = asyncio.create_task(self._end(served))
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)

    async def unloaded(self) -> None:
        """Returns when everything that was to be unloaded is."""
        while self._ends:
            await asyncio.wait(self._ends)

    async def close(self) -> None:
        """Waits no longer for calls under way."""
        await all_ended(self._ends)

    def _finish(self, model: ModelVersion, ended: Ended) -> None:
        served = self._served.get(model.queue)
        if served:
            self._on_end(served, ended)
            return
        for entry, result in ended.results:
            settle(entry, result)

    async def _end(self, served: Served) -> None:
        while served.calls:
            await served.until_idle()
        del self._served[served.model.queue]
        for entry in self._batcher.drain(served.model.queue):
            settle(entry, ApiError(Reason.MODEL_UNAVAILABLE, retry_after_s=1))
        served.runner.stop()
        if not any(other.model.key == served.model.key for other in self._served.values()):
            ENGINE_QUEUE.remove(*served.model.key)
            ENGINE_OLDEST_SECONDS.remove(*served.model.key)
            ENGINE_WIDTH.remove(*served.model.key)
            served.breaker.forget()
            self._on_unload(served.model.key)
        runner, device = served.runner, served.model.device
        # An actor's module is not here.
        module = None if served.model.module is None else weakref.ref(served.model.module)
        del served
        await asyncio.to_thread(_free, runner, module, device)


def _free(runner: Runner, module: weakref.ref[nn.Module] | None, device: torch.device) -> None:
    # Some modules, such as exported programs, refer to themselves; looking for that holds up every thread a little.
    if runner.join(_LAST_BATCH_S) and module is not None and module() is not None:
        gc.collect()
    empty_cache(device)
