"""Batches of one model version side by side on the CPU, so that none waits for a core that has other work."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch
from torch import nn

from camserve_server.engine.batcher import Batch, Batcher
from camserve_server.engine.inference import Explain, Outcome
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.packing import PackedWeights
from camserve_server.engine.rescue import run_batch
from camserve_server.engine.runner import Ended, Queue, Runner

_LANES = 2
# What a picture of a full batch takes at least, in seconds: where it is less, large batches are worth more than lanes.
LEAST_S = 0.015
# How far the answers of copies may differ: the same operations in the same order give the same digits.
_ROUNDING = 1e-4


class LaneRunner(Runner):
    """Runs two batches of one version at once, each with half of the cores; one that is alone has all of them.

    The threads of one operation wait for the last of them, so that what keeps one core busy with something else holds
    up all. The lanes do not wait for each other. Each has a copy of the module that shares its weights, as hooks live
    on a module while it runs. Of a module whose copies are not like it, and of one that takes little time, one batch
    runs at a time, as `Runner` has it. The lanes are one device, so `width` is 1.
    """

    def __init__(
        self,
        queue: Queue,
        batcher: Batcher,
        read: Callable[[Path], ModelVersion],
        *,
        threads: int,
        on_end: Callable[[ModelVersion, Ended], None],
        monotonic: Callable[[], float],
    ) -> None:
        """`threads` are those of a batch that is alone."""
        self._threads = threads
        self._lanes: list[_Lane] = []
        self._changed = threading.Condition()
        super().__init__(queue, batcher, read, on_end=on_end, monotonic=monotonic)

    async def load(self, folder: Path) -> ModelVersion:
        """Returns a folder's version, which is ready or says why not; raises what stood in the way of trying."""
        return await self.call(lambda: self._open(folder))

    def join(self, timeout_s: float) -> bool:
        """Waits for the threads to end, and lets go of the version; returns whether they have."""
        ends_at = time.monotonic() + timeout_s
        self._thread.join(timeout_s)
        if self._thread.is_alive() or not all(lane.join(ends_at - time.monotonic()) for lane in self._lanes):
            return False
        self._lanes = []
        return super().join(0)

    def under_way(self) -> list[tuple[Batch, float]]:
        """Returns the batches that run now, each with the time since when its present forward pass does."""
        return super().under_way() + [running for lane in self._lanes if (running := lane.under_way) is not None]

    def _open(self, folder: Path) -> ModelVersion:
        model = self._read(folder)
        is_heavy = model.seconds_per_picture is not None and model.seconds_per_picture >= LEAST_S
        # A program, of TorchScript or exported, is its graph.
        if not is_heavy or model.module is None or hasattr(model.module, "graph"):
            return model
        try:
            copies, expected = [replace(model, module=twin(model.module)) for _ in range(_LANES)], _trial(model)
            alike = all(_alike(expected, _trial(one)) for one in copies)
        # A module may hold anything.
        except Exception:
            alike = False
        if alike:
            shares = [-(-self._threads // _LANES), self._threads // _LANES]
            self._lanes = [
                _Lane(one, share, f"{self._thread.name}-{number}")
                for number, (one, share) in enumerate(zip(copies, shares, strict=True))
            ]
        return model

    def _live(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: not self._lanes or any(lane.idle for lane in self._lanes))
                work = self._batcher.take(self._queue, self._began)
                if work is None:
                    return
                if isinstance(work, Batch):
                    self._run(work)
                else:
                    work()
        finally:
            for lane in self._lanes:
                lane.stop()

    def _run(self, batch: Batch) -> None:
        if not self._lanes or not batch.entries:
            super()._run(batch)
            return
        with self._changed:
            lane = next(lane for lane in self._lanes if lane.idle)
            lane.idle, lane.began = False, self._monotonic()
            alone = all(other.idle for other in self._lanes if other is not lane)
        threads = self._threads if alone and not self._batcher.depth(self._queue) else lane.threads
        lane.do(partial(self._run_on, lane, batch, threads))

    def _run_on(self, lane: _Lane, batch: Batch, threads: int) -> None:
        started = self._monotonic()

        def note_pass() -> None:
            lane.under_way = (batch, self._monotonic())

        note_pass()
        torch.set_num_threads(threads)
        ran = run_batch(
            lane.model, [entry.pixels for entry in batch.entries], [entry.explain for entry in batch.entries], note_pass
        )
        lane.under_way = lane.began = None
        with self._changed:
            self._end(batch, ran, started, share=threads / self._threads)
            self._batcher.ended(self._queue, self._began)
            lane.idle = True
            self._changed.notify()

    def _began(self) -> float | None:
        return min((began for lane in self._lanes if (began := lane.began) is not None), default=None)


@dataclass(eq=False)
class _Lane:
    """A thread and its copy of the version, with the threads that its operations have beside those of another lane.

    `began` is when its batch did, and `under_way` the batch with when its present pass did.
    """

    model: ModelVersion
    threads: int
    name: str
    idle: bool = True
    began: float | None = None
    under_way: tuple[Batch, float] | None = None

    def __post_init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)
        self._thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Hands the thread its next batch."""
        self._work.put(work)

    def stop(self) -> None:
        """Ends the thread once what it has is done."""
        self._work.put(None)

    def join(self, timeout_s: float) -> bool:
        """Waits for the thread to end; returns whether it has."""
        self._thread.join(max(0.0, timeout_s))
        return not self._thread.is_alive()

    def _live(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            # It holds the pictures.
            del work


def twin(module: nn.Module) -> nn.Module:
    """Returns a copy that shares parameters and packed weights."""
    shared: list[object] = list(module.parameters())
    shared += [held for child in module.modules() for held in vars(child).values() if isinstance(held, PackedWeights)]
    return copy.deepcopy(module, {id(one): one for one in shared})


def _trial(model: ModelVersion) -> list[Outcome]:
    """Returns its answers about a picture that it was not warmed up with, with a map and without."""
    picture = np.random.default_rng(1).integers(0, 256, (model.input.height, model.input.width, 3), np.uint8)
    wishes = [None if model.default_layer is None else Explain(model.default_layer, "gradcam", None), None]
    return [outcome for wish in wishes for outcome in model.run([picture], [wish])]


def _alike(expected: list[Outcome], actual: list[Outcome]) -> bool:
    """Whether answers are the same but for rounding: code may hold on to the module that it was copied from."""
    for one, other in zip(expected, actual, strict=True):
        if (one.cam is None) != (other.cam is None) or not torch.allclose(one.probs, other.probs, atol=_ROUNDING):
            return False
        if one.cam is not None and other.cam is not None:
            tolerance = _ROUNDING * max(1.0, float(one.cam.max()))
            if not torch.allclose(one.cam, other.cam, rtol=0, atol=tolerance):
                return False
    return True
