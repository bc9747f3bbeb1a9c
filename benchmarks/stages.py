"""Each stage of a prediction alone, in a process of its own with the server's settings."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from benchmarks.driver import obey
from benchmarks.loop import LoopThread
from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings, load
from camserve_server.base.logs import configure_logs
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.device import choose_device, prepare_thread
from camserve_server.engine.folders import find_folders
from camserve_server.engine.imaging import DecodeRequest, ImagingPool, RenderRequest
from camserve_server.engine.inference import Explain, Outcome
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.png_writer import PngWriter
from camserve_server.part_settings import imaging_settings
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects

BATCH = 8

T = TypeVar("T")


@dataclass(slots=True)
class Times:
    """Milliseconds per image of every repetition, by stage."""

    ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, stage: str, ms: float) -> None:
        """Adds one repetition."""
        self.ms.setdefault(stage, []).append(ms)

    def medians(self) -> dict[str, float]:
        """Returns the median of every stage."""
        return {stage: median(values) for stage, values in self.ms.items()}


def _clocked(work: Callable[[], T]) -> tuple[T, float]:
    started = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - started) * 1000


def _engine_stages(version: ModelVersion, pixels: Any, times: Times) -> Outcome:
    """Runs batches with and without maps, right after each other in turns; returns an explained outcome."""
    pictures = [pixels] * BATCH
    preprocess = version.preprocess
    assert preprocess is not None
    assert version.default_layer is not None
    explain = Explain(version.default_layer, "gradcam", None)
    times.add("preprocess", _clocked(partial(preprocess, pictures))[1] / BATCH)
    explained_first = len(times.ms["preprocess"]) % 2 == 0
    for count in (1, BATCH):
        ran = {
            wanted: _clocked(partial(version.run, [pixels] * count, [explain if wanted else None] * count))
            for wanted in (explained_first, not explained_first)
        }
        (plain, off_ms), (explained, on_ms) = ran[False], ran[True]
        times.add(f"forward, batch {count}", plain[0].inference_ms / count)
        times.add(f"CAM after it, batch {count}", explained[0].cam_ms / count)
        times.add(f"engine with / without CAM, batch {count}", on_ms / off_ms)
    return explained[0]


async def _imaging_stages(pool: ImagingPool, image: SharedBuffer, version: ModelVersion, times: Times) -> Any:
    started = time.perf_counter()
    with await pool.decode(image, DecodeRequest(version.input)) as decoded:
        times.add("decode, with the way to the worker", (time.perf_counter() - started) * 1000)
        times.add("decode (imaging worker)", decoded.decode_ms)
        pixels = decoded.pixels.copy()
        outcome = _engine_stages(version, pixels, times)
        assert outcome.cam is not None
        drawing = RenderRequest(outcome.cam.numpy(), decoded.view, decoded.draw_width, decoded.draw_height)
    started = time.perf_counter()
    rendered = await pool.render(drawing)
    times.add("render, with the way to the worker", (time.perf_counter() - started) * 1000)
    times.add("render (imaging worker, encode included)", rendered.render_ms)
    return rendered


def _encode(rows: Any) -> None:
    writer = PngWriter(io.BytesIO(), rows.shape[1], rows.shape[0])
    writer.add(rows)
    writer.finish()


class Stages:
    """The parts that the stages need."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        """Stores objects under `folder`."""
        self._settings = settings
        self._pool = ImagingPool(imaging_settings(settings))
        clock = SystemClock()
        self._objects = LocalObjects(folder, KeyRing(folder / "keys.json", clock=clock), clock=clock)

    async def start(self) -> None:
        """Starts the workers."""
        await self._pool.start()

    async def close(self) -> None:
        """Stops the workers."""
        await self._pool.close()
        await self._objects.close()

    def load(self, model: str) -> ModelVersion:
        """Returns the model's newest version, ready on this thread."""
        device = choose_device(self._settings.device)
        prepare_thread(device, self._settings.torch_threads or len(os.sched_getaffinity(0)))
        folder = [one for one in find_folders([self._settings.models_dir]) if one.parent.name == model][-1]
        return load_version(folder, device, max_batch=self._settings.max_batch, weights_dir=None)

    async def measure(self, picture: bytes, model: str, seconds: float) -> dict[str, float]:
        """Returns the median milliseconds per image of every stage, and ratios; the stages take turns."""
        version = self.load(model)
        times = Times()
        with SharedBuffer.create("image") as image:
            image.append(picture)
            await _imaging_stages(self._pool, image, version, Times())
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                rendered = await _imaging_stages(self._pool, image, version, times)
                rows = np.asarray(Image.open(io.BytesIO(rendered.data)))
                times.add("encode alone", _clocked(partial(_encode, rows))[1])
                started = time.perf_counter()
                await self._objects.put(
                    "benchmark", rendered.data, content_type="image/png", expires_at=time.time() + 60
                )
                times.add("store (encrypted)", (time.perf_counter() - started) * 1000)
        return times.medians()


def _main() -> None:
    # To standard error: the answers go to standard output.
    configure_logs("info")
    loop = LoopThread()
    with TemporaryDirectory(prefix="camserve-bench-") as folder:
        stages = Stages(load(), Path(folder))
        loop.wait(stages.start())

        def serve(order: dict[str, Any]) -> Any:
            return loop.wait(stages.measure(Path(order["picture"]).read_bytes(), order["model"], order["seconds"]))

        obey(serve)
        loop.wait(stages.close())


if __name__ == "__main__":
    _main()
