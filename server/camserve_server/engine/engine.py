"""The engine: models on one device, and predictions in batches with their heatmaps."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from camserve_server.base.breaker import Breaker, CircuitState, Turn
from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batch_limit import BatchLimit
from camserve_server.engine.batcher import Batch, Batcher, Entry, Lane
from camserve_server.engine.catalog import Catalog, find_folders
from camserve_server.engine.device import choose_device, prepare_thread
from camserve_server.engine.footprint import release_library_pages
from camserve_server.engine.inference import Explain, Outcome
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.rescue import run_batch
from camserve_server.engine.slots import FairSlots

__all__ = ["Engine", "EngineSettings", "EngineStats", "Explain", "ModelFailedError", "Prediction"]

# What the newest batch counts in the mean of the last ones.
_PACE_WEIGHT = 0.1
# Batches that failed in a row, each confirmed with a picture of ours: few, since nothing else is to blame.
_FAILURES = 3
# A picture that tries a model may wait for the device behind other models.
_PATIENCE_S = 10.0

T = TypeVar("T")
BatchHook = Callable[[ModelVersion, int, float, float], None]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs to know.

    `device`: auto, cpu, cuda or cuda:N. `torch_threads`: CPU threads of the device thread, None
    for all cores. `batch_delay_ms`: how long a batch waits to fill while the device is free; 0
    takes what is there. `queue_limit`: waiting unary entries per version, and stream entries under
    way. `weights_dir`: where downloaded weights lie, None for torch's hub cache.
    """

    models_dirs: tuple[Path, ...]
    device: str = "auto"
    torch_threads: int | None = None
    max_batch: int = 16
    batch_delay_ms: float = 0.0
    queue_limit: int = 256
    weights_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """One picture's answer.

    `probs` is (C,) float32, the calibrated softmax; `cam` (h, w) float32 >= 0, the raw map of the
    model's input, with the `layer`, `method` and `target` (class index) it was made for; all four
    are None where no heatmap was asked for. `batch_size` counts the pictures that ran together;
    the times are theirs, and `queue_ms` this one's wait.
    """

    probs: NDArray[np.float32]
    cam: NDArray[np.float32] | None
    layer: str | None
    method: str | None
    target: int | None
    queue_ms: float
    inference_ms: float
    cam_ms: float
    batch_size: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Waiting entries per (model, version) now; batches and pictures since the start."""

    queue_depth: dict[tuple[str, str], int]
    batches: int
    pictures: int


class ModelFailedError(ApiError):
    """INTERNAL, because the model fails on every picture: the one that was sent is not to blame."""

    def __init__(self) -> None:
        super().__init__(Reason.INTERNAL)


Result = Prediction | ApiError


class Engine:
    """Loads the models and owns the one thread in which they run.

    Its methods belong to the event loop that called `start`. `on_batch(model, size, inference_ms,
    cam_ms)`, if set, is called there after each batch. Each version has a breaker of its own.
    """

    def __init__(self, settings: EngineSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Checks the device; ValueError when it is not there."""
        self.on_batch: BatchHook | None = None
        self._settings = settings
        self._device = choose_device(settings.device)
        self._monotonic = monotonic
        self._catalog = Catalog([])
        self._batcher = Batcher(
            max_batch=settings.max_batch,
            delay_s=settings.batch_delay_ms / 1000,
            queue_limit=settings.queue_limit,
            monotonic=monotonic,
        )
        self._slots: dict[ModelVersion, FairSlots] = {}
        self._breakers: dict[ModelVersion, Breaker] = {}
        self._limits: dict[ModelVersion, BatchLimit] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches = 0
        self._pictures = 0
        self._seconds_per_picture: dict[ModelVersion, float] = {}

    async def start(self) -> None:
        """Returns when every version found is ready or unavailable; the loop stays free meanwhile."""
        self._loop = asyncio.get_running_loop()
        folders = await asyncio.to_thread(find_folders, self._settings.models_dirs)
        self._catalog = Catalog(folders)
        self._thread = threading.Thread(target=self._own_device, name="device", daemon=True)
        self._thread.start()
        threads = self._settings.torch_threads or _cores()
        await self.on_device(lambda: prepare_thread(self._device, threads))
        for folder in folders:
            await self._load(folder)
        if self._device.type == "cpu":
            await asyncio.to_thread(release_library_pages)

    async def close(self) -> None:
        """Lets the batch that runs finish and refuses those that wait with SERVICE_DRAINING."""
        for entry in self._batcher.close():
            _settle(entry, ApiError(Reason.SERVICE_DRAINING))
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
            # The last batch's results were posted before the thread ended.
            await asyncio.sleep(0)

    def models(self) -> list[ModelVersion]:
        """Returns every version, whatever its state, by name, then version."""
        return self._catalog.models()

    def resolve(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns a ready version.

        Raises ApiError MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND or MODEL_UNAVAILABLE.
        """
        return self._catalog.resolve(name, version_or_alias)

    def check_circuit(self, model: ModelVersion) -> None:
        """Raises ApiError CIRCUIT_OPEN while the version keeps failing and is left alone: ask before decoding."""
        self._breakers[model].check()

    def works(self, model: ModelVersion) -> bool:
        """Returns whether the version is ready and does not keep failing."""
        return model.state == "ready" and self._breakers[model].state is CircuitState.CLOSED

    def waiting(self, model: ModelVersion) -> int:
        """Returns how many pictures wait for the device; may be asked from any thread."""
        return self._batcher.depth(model)

    def wait_s(self, model: ModelVersion) -> float:
        """Estimates how long a picture that came now would wait for the device."""
        return self._batcher.depth(model) * self._seconds_per_picture.get(model, 0.0)

    def stats(self) -> EngineStats:
        """Returns the counters for metrics."""
        depths = {model.key: self._batcher.depth(model) for model in self.models()}
        return EngineStats(depths, self._batches, self._pictures)

    async def predict(
        self,
        model: ModelVersion,
        pixels: NDArray[np.uint8],
        explain: Explain | None,
        *,
        tenant: str,
        lane: Lane,
        deadline_monotonic: float | None = None,
    ) -> Prediction:
        """Predicts one picture (H, W, 3) uint8 of the model's input size; its memory is copied.

        A full queue refuses the unary lane with SERVICE_OVERLOADED and lets the stream lane wait.
        Raises ApiError TIMEOUT_EXCEEDED once the deadline has passed, INTERNAL when the model
        fails on this picture (ModelFailedError: on every picture), CIRCUIT_OPEN while it keeps
        failing, and what `ModelVersion.resolve` raises. A cancelled caller's entry does not run,
        unless it runs already.
        """
        explain = None if explain is None else model.resolve(explain)
        if pixels.shape != (model.input.height, model.input.width, 3):
            raise ValueError("the picture does not have the model's input size")
        # A heatmap of another layer than the default costs a forward of its own.
        own_forward = explain is not None and explain.layer != model.default_layer
        entry = Entry(
            queue=model,
            pixels=pixels,
            explain=explain,
            tenant=tenant,
            lane=lane,
            deadline_monotonic=deadline_monotonic,
            enqueued_monotonic=self._monotonic(),
            future=asyncio.get_running_loop().create_future(),
            cost=2.0 if own_forward else 1.0,
        )
        try:
            async with asyncio.timeout(self._left_s(deadline_monotonic)):
                if lane == "unary":
                    return await self._queued(entry)
                slots = self._slots[model]
                await slots.acquire(tenant)
                try:
                    return await self._queued(entry)
                finally:
                    slots.release()
        except TimeoutError:
            raise ApiError(Reason.TIMEOUT_EXCEEDED) from None

    async def _queued(self, entry: Entry) -> Prediction:
        assert isinstance(entry.queue, ModelVersion)
        entry.turn = self._breakers[entry.queue].enter()
        try:
            # The device thread may read the pixels after the caller has left and freed its memory.
            entry.pixels = entry.pixels.copy()
            self._batcher.put(entry)
            prediction: Prediction = await entry.future
        except asyncio.CancelledError:
            self._batcher.discard(entry)
            raise
        finally:
            entry.turn.left()
        return prediction

    def _left_s(self, deadline_monotonic: float | None) -> float | None:
        return None if deadline_monotonic is None else max(0.0, deadline_monotonic - self._monotonic())

    async def _load(self, folder: Path) -> None:
        settings = self._settings
        model = await self.on_device(
            lambda: load_version(folder, self._device, max_batch=settings.max_batch, weights_dir=settings.weights_dir)
        )
        if model.state == "ready":
            self._batcher.open_queue(model, model.max_batch)
            self._slots[model] = FairSlots(settings.queue_limit)
            self._breakers[model] = Breaker(
                "engine",
                "/".join(model.key),
                monotonic=self._monotonic,
                failures=_FAILURES,
                patience_s=_PATIENCE_S,
            )
            self._limits[model] = BatchLimit(model.max_batch or settings.max_batch, self._monotonic)
        self._catalog.set(model)

    async def on_device(self, function: Callable[[], T]) -> T:
        """Runs the function on the device's thread, between batches."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def errand() -> None:
            outcome: concurrent.futures.Future[T] = concurrent.futures.Future()
            try:
                outcome.set_result(function())
            except Exception as error:
                outcome.set_exception(error)
            self._post(lambda: _copy(outcome, done))

        self._batcher.call(errand)
        return await done

    def _own_device(self) -> None:
        while (work := self._batcher.take()) is not None:
            if isinstance(work, Batch):
                self._run_batch(work)
            else:
                work()

    def _run_batch(self, batch: Batch) -> None:
        """Runs a batch and posts all its results at once."""
        assert isinstance(batch.queue, ModelVersion)
        model = batch.queue
        results: list[tuple[Entry, Result]] = [(entry, ApiError(Reason.TIMEOUT_EXCEEDED)) for entry in batch.expired]
        works = True
        if batch.entries:
            started = self._monotonic()
            ran = run_batch(
                model, [entry.pixels for entry in batch.entries], [entry.explain for entry in batch.entries]
            )
            works = ran.works
            results += [
                (entry, _result(entry, outcome, started, len(batch.entries)) if works else ModelFailedError())
                for entry, outcome in zip(batch.entries, ran.outcomes, strict=True)
            ]
            self._note_pace(model, (self._monotonic() - started) / len(batch.entries))
            self._note_memory(model, ran.too_large)
        self._post(lambda: self._finish(model, batch.entries, works, results))

    def _note_pace(self, model: ModelVersion, seconds: float) -> None:
        known = self._seconds_per_picture.get(model, seconds)
        self._seconds_per_picture[model] = known + _PACE_WEIGHT * (seconds - known)

    def _note_memory(self, model: ModelVersion, too_large: int | None) -> None:
        limit = self._limits[model]
        if too_large is not None:
            limit.fell_short(too_large)
        self._batcher.limit(model, limit.pictures)

    def _post(self, callback: Callable[[], object]) -> None:
        assert self._loop is not None
        # A loop that has been closed has nobody left to answer.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _finish(
        self, model: ModelVersion, entries: list[Entry], works: bool, results: list[tuple[Entry, Result]]
    ) -> None:
        if entries:
            self._note_health(model, entries, works)
        for entry, result in results:
            _settle(entry, result)
        size = len(entries)
        if not size:
            return
        self._batches += 1
        self._pictures += size
        if self.on_batch is not None:
            predictions = [result for _, result in results if isinstance(result, Prediction)]
            # Pictures of one forward carry the same times; one with a heatmap knows them all.
            cam_ms_by_forward: dict[float, float] = {}
            for prediction in predictions:
                known = cam_ms_by_forward.get(prediction.inference_ms, 0.0)
                cam_ms_by_forward[prediction.inference_ms] = max(known, prediction.cam_ms)
            self.on_batch(model, size, sum(cam_ms_by_forward), sum(cam_ms_by_forward.values()))

    def _note_health(self, model: ModelVersion, entries: list[Entry], works: bool) -> None:
        """Counts the batch once, and refuses what waits for a model that is left alone from now on."""
        breaker = self._breakers[model]
        note = Turn.succeeded if works else Turn.failed
        counted = any(note(entry.turn) for entry in entries if entry.turn is not None)
        if not counted:
            # All its callers have left, which a model that is slow to fail brings about.
            note(breaker.join())
        if breaker.state is CircuitState.OPEN:
            for entry in self._batcher.drain(model):
                _settle(entry, breaker.refusal())


def _cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _result(entry: Entry, outcome: Outcome | None, started: float, batch_size: int) -> Result:
    if outcome is None:
        return ApiError(Reason.INTERNAL)
    if outcome.disconnected:
        return ApiError(Reason.PARAM_LAYER_NOT_FOUND, "The layer does not lead to the model's scores.")
    return Prediction(
        probs=outcome.probs.numpy(),
        cam=None if outcome.cam is None else outcome.cam.numpy(),
        layer=None if entry.explain is None else entry.explain.layer,
        method=None if entry.explain is None else entry.explain.method,
        target=outcome.target,
        queue_ms=(started - entry.enqueued_monotonic) * 1000,
        inference_ms=outcome.inference_ms,
        cam_ms=outcome.cam_ms,
        batch_size=batch_size,
    )


def _copy(source: concurrent.futures.Future[T], target: asyncio.Future[T]) -> None:
    if target.done():
        return
    error = source.exception()
    if error is None:
        target.set_result(source.result())
    else:
        target.set_exception(error)


def _settle(entry: Entry, result: Result) -> None:
    if entry.future.done():
        return
    if isinstance(result, ApiError):
        entry.future.set_exception(result)
    else:
        entry.future.set_result(result)
