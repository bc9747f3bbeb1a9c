"""Shows a version the calls that another one has answered, out of the way of callers."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import SHADOWS
from camserve_server.core.comparisons import Compared
from camserve_server.core.infer_options import InferOptions
from camserve_server.core.model_figures import ModelFigures
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.engine import Engine, Explain, Prediction
from camserve_server.engine.imaging import DecodedImage, DecodeRequest, ImagingPool
from camserve_server.engine.model import ModelVersion

_log = structlog.get_logger("shadows")

# A few seconds of calls for one that is slow: what waits longer is of no use to anybody.
_MOST_WAITING = 16
# The answer is written and sent first.
_AFTER_S = 0.05
# Even if a shadow doubled the time of every call beside it, calls would take a twentieth longer on average.
_SHARE_OF_TIME = 0.05
# Nobody waits longer for a new shadow after one that hung.
_LONGEST_PAUSE_S = 60.0
# A version that sees pictures at another size decodes them again, for which they are kept until its turn.
_LARGEST_BYTES = 4 * 1024 * 1024
# Of its own among tenants, so that nobody's turn is taken.
_TENANT = "shadow"


@dataclass(slots=True)
class _Waiting:
    """A picture for the shadow: its pixels, or where those would be of another size the image.

    `view` is what the answering version saw of it, and `size` how wide and high it is.
    """

    answering: ModelVersion
    answer: Prediction
    view: tuple[float, float, float, float]
    size: tuple[int, int]
    shadow: ModelVersion
    options: InferOptions
    pixels: NDArray[np.uint8] | None
    image: SharedBuffer | None

    def close(self) -> None:
        if self.image:
            self.image.close()


class Shadows:
    """Takes answered calls, drops those for which there is no room, and runs the rest one by one, with pauses."""

    def __init__(self, engine: Engine, imaging: ImagingPool, routes: ModelRoutes, figures: ModelFigures) -> None:
        self._engine = engine
        self._imaging = imaging
        self._routes = routes
        self._figures = figures
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(_MOST_WAITING)
        self._showing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to run what waits."""
        self._showing = asyncio.create_task(self._show_all())

    async def close(self) -> None:
        """Runs nothing more and lets go of what waits."""
        if self._showing:
            await ended([self._showing])
        while not self._waiting.empty():
            self._waiting.get_nowait().close()

    def offer(
        self,
        answering: ModelVersion,
        answer: Prediction,
        options: InferOptions,
        image: SharedBuffer,
        picture: DecodedImage,
    ) -> None:
        """Keeps what the shadow needs of a call if it is one that the shadow sees; does not wait."""
        chosen = self._routes.shadow(answering.name)
        if chosen is None or chosen.version == answering.version or random.random() * 100 >= chosen.percent:
            return
        try:
            shadow = self._engine.resolve(answering.name, chosen.version)
        except ApiError:
            SHADOWS.labels("not ready").inc()
            return
        if self._waiting.full() or self._is_busy():
            SHADOWS.labels("dropped").inc()
            return
        same = shadow.input == answering.input
        kept = None if same else _kept(image)
        if not same and kept is None:
            SHADOWS.labels("dropped").inc()
            return
        pixels = picture.pixels.copy() if same else None
        size = (picture.width, picture.height)
        self._waiting.put_nowait(_Waiting(answering, answer, picture.view, size, shadow, options, pixels, kept))

    def _is_busy(self) -> bool:
        return any(self._engine.stats().queue_depth.values())

    def _is_shadow(self, version: ModelVersion) -> bool:
        chosen = self._routes.shadow(version.name)
        return chosen is not None and chosen.version == version.version

    async def _show_all(self) -> None:
        while True:
            waiting = await self._waiting.get()
            try:
                await asyncio.sleep(_AFTER_S)
                began = time.monotonic()
                drop = self._is_busy() or not self._is_shadow(waiting.shadow)
                outcome = "dropped" if drop else await self._show(waiting)
            finally:
                waiting.close()
            SHADOWS.labels(outcome).inc()
            await asyncio.sleep(pause_s(time.monotonic() - began))

    async def _show(self, waiting: _Waiting) -> str:
        shadow = waiting.shadow
        try:
            with self._engine.kept(shadow):
                with self._figures.errors(shadow, "shadow"):
                    shown, view = await self._predict(waiting)
                self._figures.count(shadow, "shadow", shown)
                width, height = waiting.size
                self._figures.compare(
                    Compared(waiting.answering, waiting.answer, waiting.view, shadow, shown, view, width, height)
                )
        except ApiError:
            return "failed"
        except Exception:
            _log.exception("a shadow failed", model=shadow.name, version=shadow.version)
            return "failed"
        return "shown"

    async def _predict(self, waiting: _Waiting) -> tuple[Prediction, tuple[float, float, float, float]]:
        """Returns the shadow's prediction, and what it saw of the picture."""
        shadow, explain = waiting.shadow, _explain(waiting)
        if waiting.pixels is not None:
            shown = await self._engine.predict(shadow, waiting.pixels, explain, tenant=_TENANT, lane="stream")
            return shown, waiting.view
        assert waiting.image is not None
        request = DecodeRequest(shadow.input, longest_side_px=waiting.options.longest_side_px)
        with await self._imaging.decode(waiting.image, request, share=_TENANT, background=True) as picture:
            shown = await self._engine.predict(shadow, picture.pixels, explain, tenant=_TENANT, lane="stream")
            return shown, picture.view


def pause_s(took_s: float) -> float:
    """Returns how long nothing is shown after something that took that long."""
    return min(_LONGEST_PAUSE_S, took_s / _SHARE_OF_TIME - took_s)


def _kept(image: SharedBuffer) -> SharedBuffer | None:
    if image.size > _LARGEST_BYTES:
        return None
    try:
        return image.share()
    except ApiError:
        return None  # the memory set aside for images is needed for callers'


def _explain(waiting: _Waiting) -> Explain | None:
    """Returns the answer's heatmap as the shadow can draw it: of the same class, at the same layer if it has that."""
    answer, shadow = waiting.answer, waiting.shadow
    if answer.cam is None or answer.method is None or answer.target is None or shadow.default_layer is None:
        return None
    wanted = waiting.options.heatmap
    layer = wanted.layer if wanted and wanted.layer in shadow.layers else "auto"
    class_id = waiting.answering.labels[answer.target].id
    target = next((index for index, label in enumerate(shadow.labels) if label.id == class_id), None)
    return Explain(layer, answer.method, target)
