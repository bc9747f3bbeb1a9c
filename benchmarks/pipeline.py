"""The bare pipeline: the server's stages with its settings, driven by asyncio without any server around them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.driver import obey
from benchmarks.loop import LoopThread
from benchmarks.window import Window
from camserve_server.base.config import load
from camserve_server.base.logs import configure_logs
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.engine import Engine, Explain
from camserve_server.engine.imaging import DecodeRequest, ImagingPool, RenderRequest
from camserve_server.part_settings import engine_settings, imaging_settings


class Pipeline:
    """Engine and imaging workers on one event loop."""

    def __init__(self) -> None:
        """Takes its settings from the environment, as the server does."""
        settings = load()
        self._engine = Engine(engine_settings(settings))
        self._imaging = ImagingPool(imaging_settings(settings))

    async def start(self) -> None:
        """Loads the models and starts the workers."""
        await asyncio.gather(self._engine.start(), self._imaging.start())

    async def close(self) -> None:
        """Stops both."""
        await self._engine.close()
        await self._imaging.close()

    async def predict(self, picture: bytes, model: str, *, cam: bool) -> None:
        """Takes one encoded picture through every stage; the heatmap has the picture's own size."""
        version = self._engine.resolve(model, "stable")
        explain = Explain("auto", "gradcam", None) if cam else None
        with SharedBuffer.create("image") as image:
            image.append(picture)
            with await self._imaging.decode(image, DecodeRequest(version.input)) as decoded:
                prediction = await self._engine.predict(
                    version, decoded.pixels, explain, tenant="benchmark", lane="unary"
                )
                if prediction.cam is not None:
                    drawing = RenderRequest(prediction.cam, decoded.view, decoded.draw_width, decoded.draw_height)
                    await self._imaging.render(drawing)

    async def measure(
        self, picture: bytes, model: str, *, cam: bool, concurrency: int, warm_up_s: float, seconds: float
    ) -> dict[str, Any]:
        """Returns what `concurrency` tasks saw that predicted as often as they could, and the images of a batch."""
        await self.predict(picture, model, cam=cam)
        before = self._engine.stats()
        window = Window.of(time.monotonic(), warm_up_s, seconds)

        async def work() -> None:
            while (started := time.monotonic()) < window.ends_at:
                await self.predict(picture, model, cam=cam)
                window.add(started, time.monotonic())

        await asyncio.gather(*(work() for _ in range(concurrency)))
        after = self._engine.stats()
        per_batch = (after.pictures - before.pictures) / (after.batches - before.batches)
        return {**window.sample().as_dict(), "images_per_batch": per_batch}


def _main() -> None:
    # To standard error: the answers go to standard output.
    configure_logs("info")
    loop = LoopThread()
    pipeline = Pipeline()
    loop.wait(pipeline.start())

    def serve(order: dict[str, Any]) -> Any:
        order["picture"] = Path(order["picture"]).read_bytes()
        return loop.wait(pipeline.measure(**order))

    try:
        obey(serve)
    finally:
        loop.wait(pipeline.close())


if __name__ == "__main__":
    _main()
