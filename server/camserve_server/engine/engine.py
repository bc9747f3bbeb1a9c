"""The engine: models on one device, and predictions in batches with their heatmaps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from camserve_server.base.breaker import CircuitState, Turn
from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batcher import Batch, Batcher, Entry, Lane
from camserve_server.engine.cluster.settings import ClusterSettings
from camserve_server.engine.folders import Key, earlier_versions
from camserve_server.engine.inference import Explain
from camserve_server.engine.loader import Loader
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.place import Here, Place
from camserve_server.engine.prediction import ModelFailedError, Prediction, settle
from camserve_server.engine.registry import Registry
from camserve_server.engine.runner import Ended
from camserve_server.engine.served import Served

__all__ = ["Engine", "EngineSettings", "EngineStats", "Explain", "ModelFailedError", "Prediction"]

_log = structlog.get_logger("engine")

# How often batches under way are looked at, in their deadline and in seconds.
_LOOKS = 10
_LONGEST_LOOK_S = 1.0
# A batch that runs at the end may finish, which a hanging one does not.
_LAST_BATCH_S = 3.0

BatchHook = Callable[[ModelVersion, int, float, float], None]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs to know.

    `device`: auto, cpu, cuda or cuda:N. `torch_threads`: CPU threads with which each version runs,
    None for all cores. `batch_delay_ms`: how long a batch waits to fill while the device is free;
    0 takes what is there. `queue_limit`: waiting unary entries per version, and stream entries
    under way. `pass_deadline_s`: when a forward pass counts as hanging. `weights_dir`: where
    downloaded weights lie, None for torch's hub cache. `memory_bytes`: what loaded versions may take
    together, None for no limit. `load_wait_s`: how long the start, and versions behind it, wait for one
    to load. `look_interval_s`: the pause between looks into the model folders. `cluster`: the Ray cluster on which
    versions run, None for this process.
    """

    models_dirs: tuple[Path, ...]
    device: str = "auto"
    torch_threads: int | None = None
    max_batch: int = 16
    batch_delay_ms: float = 0.0
    queue_limit: int = 256
    pass_deadline_s: float = 30.0
    weights_dir: Path | None = None
    memory_bytes: int | None = None
    load_wait_s: float = 30.0
    look_interval_s: float = 1.0
    cluster: ClusterSettings | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Waiting entries per (model, version) now; batches and pictures since the start."""

    queue_depth: dict[tuple[str, str], int]
    batches: int
    pictures: int


class Engine:
    """Loads the models, each version in a thread or actors of its own, and has them take turns at the device.

    Its methods belong to the event loop that called `start`. `on_batch(model, size, inference_ms,
    cam_ms)`, if set, is called there after each batch, and `on_unload((name, version))` once that
    version is loaded no longer. Each version has a breaker of its own.
    """

    def __init__(self, settings: EngineSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Checks the device; ValueError when it is not there, OperatorError where Ray is wanted and not installed."""
        self.on_batch: BatchHook | None = None
        self.on_unload: Callable[[Key], None] = lambda key: None
        self._settings = settings
        self._place = _place(settings)
        self._monotonic = monotonic
        self._batcher = Batcher(
            max_batch=settings.max_batch,
            delay_s=settings.batch_delay_ms / 1000,
            queue_limit=settings.queue_limit,
            turn_s=self._place.turn_s,
            monotonic=monotonic,
        )
        self._loader = Loader(
            self._batcher,
            lambda queue, on_end: self._place.runner(queue, self._batcher, on_end, monotonic),
            max_batch=settings.max_batch,
            queue_limit=settings.queue_limit,
            on_end=self._finish,
            on_unload=lambda key: self.on_unload(key),
            monotonic=monotonic,
        )
        self._registry = Registry(
            settings.models_dirs,
            self._loader,
            memory_bytes=settings.memory_bytes,
            load_wait_s=settings.load_wait_s,
            look_interval_s=settings.look_interval_s,
            monotonic=monotonic,
        )
        self._watching: asyncio.Task[None] | None = None
        self._batches = 0
        self._pictures = 0

    @property
    def shares_cores(self) -> bool:
        """Whether the models run on the cores that also decode and draw."""
        return self._place.shares_cores

    async def start(self) -> None:
        """Returns when every version found is ready, unavailable or late; the loop stays free meanwhile.

        From then on versions are loaded as their folders appear, and unloaded as they go.
        """
        await self._place.start()
        await self._registry.start()
        await self._place.settle()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Lets batches that run finish, unless they hang, and refuses what waits with SERVICE_DRAINING."""
        if self._watching is not None:
            self._watching.cancel()
        left = self._batcher.close()
        ends_at = time.monotonic() + _LAST_BATCH_S
        await self._registry.close()
        for entry in left:
            settle(entry, ApiError(Reason.SERVICE_DRAINING))
        runners = [served.runner for served in self._loader.all()]
        for runner in runners:
            await asyncio.to_thread(runner.join, max(0.0, ends_at - time.monotonic()))
        # The last batches' results were posted before their threads ended.
        await asyncio.sleep(0)
        for runner in runners:
            for batch, _ in runner.under_way():
                for entry in batch.entries:
                    settle(entry, ApiError(Reason.SERVICE_DRAINING))
        await self._place.close()

    async def look(self) -> None:
        """Looks into the model folders now, and returns when what came is loaded and what went is unloaded."""
        await self._registry.look()
        await self._registry.settled()

    def protect(self, is_needed: Callable[[ModelVersion], bool]) -> None:
        """Says which versions stay loaded whatever becomes of their folders and of the memory."""
        self._registry.is_needed = is_needed

    def models(self) -> list[ModelVersion]:
        """Returns every version, whatever its state, by name, then version."""
        return self._registry.models()

    def resolve(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns a ready version; asking for one that was set aside for want of memory makes it load.

        Raises ApiError MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND or MODEL_UNAVAILABLE.
        """
        return self._registry.resolve(name, version_or_alias)

    def has_version(self, name: str, version: str) -> bool:
        """Returns whether there is a version of that name, whatever its state; an alias is none."""
        return self._registry.has_version(name, version)

    def is_retired(self, name: str, version: str) -> bool:
        """Returns whether there is such a version and it answers no longer."""
        return any(model.key == (name, version) and model.state == "retired" for model in self.models())

    async def rerun_golden(self, name: str, version: str) -> ModelVersion:
        """Runs the golden inputs of a ready version anew, and returns it as it is listed from then on.

        Raises ApiError as `resolve` does, and CIRCUIT_OPEN while the version is left alone.
        """
        return await self._registry.rerun_golden(name, version)

    def kept(self, model: ModelVersion) -> AbstractContextManager[None]:
        """Surrounds a call from `resolve` to its answer: the version is not unloaded before.

        Raises ApiError(MODEL_UNAVAILABLE) when it has been unloaded since.
        """
        return self._loader.served(model).kept()

    def check_circuit(self, model: ModelVersion) -> None:
        """Raises ApiError CIRCUIT_OPEN while the version keeps failing and is left alone: ask before decoding."""
        self._loader.served(model).breaker.check()

    def works(self, model: ModelVersion) -> bool:
        """Returns whether the version is ready and does not keep failing."""
        if model.state != "ready":
            return False
        return self._loader.served(model).breaker.state is CircuitState.CLOSED

    def memory_bytes(self) -> dict[str, int]:
        """Returns bytes of memory of the device by kind, see `device.memory_bytes`; may be asked from any thread."""
        return self._place.memory_bytes()

    def pictures_per_s(self, key: Key) -> float | None:
        """Estimates how many pictures the device does of that version alone, from its last batches or the warm-up.

        Small batches, as where few callers are, tell of fewer than it could do. None of what is not loaded.
        """
        found = [served for served in self._loader.all() if served.model.key == key]
        seconds = found[-1].seconds_per_picture if found else None
        return max(1, found[-1].runner.width) / seconds if seconds else None

    def wait_s(self, model: ModelVersion) -> float:
        """Estimates how long a picture that came now would wait for the device."""
        served = self._loader.served(model)
        return self._batcher.depth(model.queue) * (served.seconds_per_picture or 0.0) / max(1, served.runner.width)

    def stats(self) -> EngineStats:
        """Returns the counters for metrics."""
        depths = {model.key: self._batcher.depth(model.queue) for model in self.models()}
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
            queue=model.queue,
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
                    return await self._queued(model, entry)
                slots = self._loader.served(model).slots
                await slots.acquire(tenant)
                try:
                    return await self._queued(model, entry)
                finally:
                    slots.release()
        except TimeoutError:
            raise ApiError(Reason.TIMEOUT_EXCEEDED) from None

    async def _queued(self, model: ModelVersion, entry: Entry) -> Prediction:
        entry.turn = self._loader.served(model).breaker.enter()
        try:
            # The version's thread may read the pixels after the caller has left and freed its memory.
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

    async def _watch(self) -> None:
        """Gives up on forward passes that take too long."""
        deadline_s = self._settings.pass_deadline_s
        while True:
            await asyncio.sleep(min(deadline_s / _LOOKS, _LONGEST_LOOK_S))
            for served in self._loader.all():
                for batch, began in served.runner.under_way():
                    if batch not in served.hanging and self._monotonic() - began >= deadline_s:
                        self._give_up(served, batch)

    def _give_up(self, served: Served, batch: Batch) -> None:
        name, version = served.model.key
        _log.error("a forward pass hangs", model=name, version=version, pictures=len(batch.entries))
        if not served.hanging:
            served.breaker.hold()
        served.hanging.append(batch)
        # One of these may be to blame, so it counts as an attempt of a job's image.
        for entry in batch.entries + batch.expired:
            settle(entry, ApiError(Reason.TIMEOUT_EXCEEDED))
        for entry in self._batcher.drain(served.model.queue):
            settle(entry, served.breaker.refusal())

    def _finish(self, served: Served, ended: Ended) -> None:
        model, entries = served.model, ended.batch.entries
        if ended.batch in served.hanging:
            # Whoever was in it has been answered, and how a model works that hung shows the next batch.
            served.hanging.remove(ended.batch)
            if not served.hanging:
                served.breaker.release()
            _log.warning("a forward pass returned", model=model.name, version=model.version, seconds=ended.seconds)
            return
        if entries:
            served.note_pace(ended.seconds * ended.share / len(entries))
            self._note_health(served, entries, ended.works)
        for entry, result in ended.results:
            settle(entry, result)
        size = len(entries)
        if not size:
            return
        self._batches += 1
        self._pictures += size
        if self.on_batch is not None:
            predictions = [result for _, result in ended.results if isinstance(result, Prediction)]
            # Pictures of one forward carry the same times; one with a heatmap knows them all.
            cam_ms_by_forward: dict[float, float] = {}
            for prediction in predictions:
                known = cam_ms_by_forward.get(prediction.inference_ms, 0.0)
                cam_ms_by_forward[prediction.inference_ms] = max(known, prediction.cam_ms)
            self.on_batch(model, size, sum(cam_ms_by_forward), sum(cam_ms_by_forward.values()))

    def _note_health(self, served: Served, entries: list[Entry], works: bool) -> None:
        """Counts the batch once, and refuses what waits for a model that is left alone from now on."""
        breaker = served.breaker
        note = Turn.succeeded if works else Turn.failed
        counted = any(note(entry.turn) for entry in entries if entry.turn is not None)
        if not counted:
            # All its callers have left, which a model that is slow to fail brings about.
            note(breaker.join())
        if breaker.state is CircuitState.OPEN:
            for entry in self._batcher.drain(served.model.queue):
                settle(entry, breaker.refusal())


def _place(settings: EngineSettings) -> Place:
    earlier = partial(earlier_versions, settings.models_dirs)
    if settings.cluster is None:
        return Here(
            device=settings.device,
            threads=settings.torch_threads,
            max_batch=settings.max_batch,
            weights_dir=settings.weights_dir,
            earlier=earlier,
        )
    # An optional extra.
    from camserve_server.engine.cluster.cluster import Cluster

    return Cluster(
        settings.cluster,
        device=settings.device,
        threads=settings.torch_threads,
        max_batch=settings.max_batch,
        weights_dir=settings.weights_dir,
        earlier=earlier,
        pass_deadline_s=settings.pass_deadline_s,
    )
