"""The pool of imaging workers: killable processes that decode hostile bytes and draw heatmaps."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import IMAGING_RESTARTS
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.colormap import COLORMAPS
from camserve_server.engine.imaging_answers import decoded_image, probed, raise_error, rendered_heatmap
from camserve_server.engine.imaging_process import Answer, ImagingProcess, WorkerLostError
from camserve_server.engine.imaging_requests import (
    MAX_DECLARATION,
    DecodedImage,
    DecodeRequest,
    DeferredError,
    ImagingSettings,
    ImagingStats,
    Probed,
    RenderedHeatmap,
    RenderRequest,
)
from camserve_server.engine.input_spec import InputSpec
from camserve_server.engine.share_pace import SharePace
from camserve_server.engine.slots import Rotation

__all__ = [
    "COLORMAPS",
    "DecodeRequest",
    "DecodedImage",
    "DeferredError",
    "ImagingPool",
    "ImagingSettings",
    "ImagingStats",
    "InputSpec",
    "Probed",
    "RenderRequest",
    "RenderedHeatmap",
]

_MEGABYTE: Final = 1_000_000
_LONGEST_RESTART_DELAY_S: Final = 5.0
# With others always waiting, each ninth place goes to the background, so that it slows down and does not stop.
_FOREGROUND_STREAK: Final = 8
# What the newest call counts in the mean of the last ones.
_PACE_WEIGHT: Final = 0.1

Waiter = asyncio.Future[ImagingProcess]


class ImagingPool:
    """Gives each request to an idle worker; all methods belong to one event loop.

    Requests name the share that they belong to, as that of a tenant and a model. Of one share they are served in order,
    and shares take turns, so that a flood of one holds up none of another. In a full queue it is the share of which
    most wait that is refused. Shares whose pictures take long never have every worker, as long as there are others.
    """

    def __init__(
        self, settings: ImagingSettings, budget: ByteBudget | None = None, *, fault_injection: bool = False
    ) -> None:
        """`budget` is charged for base pictures; `fault_injection` lets tests break workers with `fault`."""
        self._settings = settings
        self._budget = budget
        self._options = {
            "limits": {
                "max_side_px": settings.max_side_px,
                "max_pixels": settings.max_pixels,
                "max_aspect": settings.max_aspect,
                "max_jpeg_scans": settings.max_jpeg_scans,
                "max_jpeg_scan_pixels": settings.max_jpeg_scan_pixels,
                "memory_bytes": settings.worker_memory_bytes,
            },
            "max_image_bytes": settings.max_image_bytes,
            "deadline_s": settings.deadline_s,
            "fault_injection": fault_injection,
        }
        self._workers: set[ImagingProcess] = set()
        self._idle: deque[ImagingProcess] = deque()
        self._waiting: Rotation[Waiter] = Rotation()
        self._waiting_background: Rotation[Waiter] = Rotation()
        self._streak = 0
        self._seconds_per_call = 0.0
        self._pace = SharePace(settings.workers)
        self._started: asyncio.Future[None] | None = None
        self._closing = False
        self._restarts = 0
        self._failed_starts = 0

    async def start(self) -> None:
        """Start every worker and wait until each is ready; raises RuntimeError when they cannot start."""
        self._started = asyncio.get_running_loop().create_future()
        try:
            for _ in range(self._settings.workers):
                self._add_worker()
            await self._started
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End all workers and wait until they are gone; calls in progress fail."""
        self._closing = True
        for waiter in (*self._waiting.drain(), *self._waiting_background.drain()):
            if not waiter.done():
                waiter.set_exception(ApiError(Reason.SERVICE_DRAINING))
        exits = [worker.exited for worker in self._workers]
        for worker in list(self._workers):
            worker.kill()
        await asyncio.gather(*exits)

    async def decode(
        self, image: SharedBuffer, request: DecodeRequest, *, share: str = "", background: bool = False
    ) -> DecodedImage:
        """Check and decode a picture in a worker; `image` stays the caller's.

        In the background it waits behind all others, shares taking turns, and is never refused for a full queue.

        Raises ApiError: UPLOAD_TOO_LARGE, IMAGE_*, MEDIA_*, and SERVICE_OVERLOADED when the queue is full. A worker
        that runs out of memory or passes the deadline, or two that crash, mean IMAGE_REJECTED. DeferredError as the
        request says.
        """
        limit = self._settings.max_image_bytes
        if image.size > limit:
            raise ApiError(
                Reason.UPLOAD_TOO_LARGE,
                limit_mb=round(limit / _MEGABYTE, 2),
                actual_mb=round(image.size / _MEGABYTE, 2),
            )
        message = {"operation": "decode", "size": image.size, **request.as_message()}
        try:
            answer = await self._call_twice(message, [image.fd], share=share, background=background)
        except WorkerLostError:
            raise ApiError(Reason.IMAGE_REJECTED) from None
        return decoded_image(answer, request, self._budget)

    async def probe(
        self, fd: int, size: int, *, held: int, declared_media_type: str | None, file_name: str | None
    ) -> Probed:
        """Check the header of a picture in a worker; past `held` of its `size` bytes most may read as zeros.

        Raises ApiError as `decode` does.
        """
        message = {
            "operation": "probe",
            "size": size,
            "held": held,
            "declared_media_type": declared_media_type[:MAX_DECLARATION] if declared_media_type else None,
            "file_name": file_name[-MAX_DECLARATION:] if file_name else None,
        }
        try:
            return probed(await self._call_twice(message, [fd]))
        except WorkerLostError:
            raise ApiError(Reason.IMAGE_REJECTED) from None

    async def render(self, request: RenderRequest, *, share: str = "", background: bool = False) -> RenderedHeatmap:
        """Draw a heatmap in a worker, in the background as `decode` does.

        Raises ValueError for a request outside its documented ranges, ApiError SERVICE_OVERLOADED when the queue is
        full, and INTERNAL when two workers die over it.
        """
        request.check()
        cam = np.ascontiguousarray(request.cam, np.float32)
        message = {
            "operation": "render",
            "cam": cam.shape,
            "view": request.view,
            "width": request.width,
            "height": request.height,
            "format": request.format,
            "colormap": request.colormap,
            "overlay": request.overlay,
            "alpha": request.alpha,
        }
        with SharedBuffer.create("cam") as raw:
            raw.append(cam.data)
            fds = [raw.fd] if request.base is None or not request.overlay else [raw.fd, request.base.fd]
            try:
                answer = await self._call_twice(message, fds, share=share, background=background, harmless=True)
            except WorkerLostError as error:
                raise ApiError(Reason.INTERNAL) from error
        return rendered_heatmap(answer, request)

    async def fault(self, kind: Literal["crash", "hang", "memory"], *, share: str = "") -> None:
        """Make a worker misbehave as a decoder might; raises what `decode` would raise then."""
        try:
            answer = await self._call_twice({"operation": "fault", "kind": kind}, [], share=share)
        except WorkerLostError:
            raise ApiError(Reason.IMAGE_REJECTED) from None
        raise_error(answer)

    @property
    def workers(self) -> frozenset[ImagingProcess]:
        """The present worker processes, ready or not."""
        return frozenset(self._workers)

    def stats(self) -> ImagingStats:
        """Return the present counts; may be asked from any thread."""
        alive = sum(worker.ready and worker.alive for worker in tuple(self._workers))
        return ImagingStats(
            workers=self._settings.workers,
            alive=alive,
            busy=alive - len(self._idle),
            queued=len(self._waiting) + len(self._waiting_background),
            restarts=self._restarts,
            resident_bytes=sum(worker.resident_bytes for worker in tuple(self._workers)),
        )

    def wait_s(self, share: str = "") -> float:
        """Estimate how long a picture of a share that came now would wait for a worker."""
        return self._waiting.ahead(share) * self._seconds_per_call / max(1, self._settings.workers)

    async def _call_twice(
        self,
        message: dict[str, Any],
        fds: Sequence[int],
        *,
        share: str = "",
        background: bool = False,
        harmless: bool = False,
    ) -> Answer:
        """Ask again where a worker ended by itself or was killed by others, which need not be the picture's fault.

        What passed the deadline would do so again, unless it is `harmless`: drawn from numbers of ours.
        """
        try:
            return await self._call(message, fds, share=share, background=background)
        except WorkerLostError as lost:
            if lost.late and not harmless:
                raise
        structlog.get_logger("imaging").warning("a worker was lost; another does its work", work=message["operation"])
        return await self._call(message, fds, share=share, background=background)

    async def _call(self, message: dict[str, Any], fds: Sequence[int], *, share: str, background: bool) -> Answer:
        """Ask an idle worker, and the next one when that has ended before it saw the request."""
        while True:
            worker = await self._acquire(share=share, background=background)
            started = time.monotonic()
            try:
                with self._pace.call(share):
                    answer = await worker.call(message, fds, self._settings.deadline_s)
                spent_s = time.monotonic() - started
                known_s = self._seconds_per_call or spent_s
                self._seconds_per_call = known_s + _PACE_WEIGHT * (spent_s - known_s)
                return answer
            except WorkerLostError as lost:
                if self._closing:
                    raise ApiError(Reason.SERVICE_DRAINING) from None
                if lost.asked:
                    raise
            finally:
                self._hand_out()

    async def _acquire(self, *, share: str, background: bool) -> ImagingProcess:
        if self._closing or self._started is None:
            raise ApiError(Reason.SERVICE_DRAINING)
        if self._idle and self._pace.may_run(share):
            return self._idle.popleft()
        waiter: Waiter = asyncio.get_running_loop().create_future()
        if background:
            self._waiting_background.push(share, waiter)
        elif len(self._waiting) < self._settings.queue_limit or self._make_room(share):
            self._waiting.push(share, waiter)
        else:
            raise ApiError(Reason.SERVICE_OVERLOADED)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._hand_on(waiter.result())
            else:
                (self._waiting_background if background else self._waiting).discard(share, waiter)
            raise

    def _make_room(self, share: str) -> bool:
        """Refuse the one that came last of the share of which most wait, unless that is this share."""
        crowd = self._waiting.longest()
        if self._waiting.count(crowd) <= self._waiting.count(share) + 1:
            return False
        dropped = self._waiting.drop_last(crowd)
        if not dropped.done():
            dropped.set_exception(ApiError(Reason.SERVICE_OVERLOADED))
        return True

    def _hand_on(self, worker: ImagingProcess) -> None:
        """Give an idle worker to the first in the queue, or keep it."""
        if worker.alive:
            self._idle.append(worker)
            self._hand_out()

    def _hand_out(self) -> None:
        """Give idle workers to those who wait."""
        while self._idle and (waiter := self._next_waiter()):
            if not waiter.done():
                waiter.set_result(self._idle.popleft())

    def _next_waiter(self) -> Waiter | None:
        foreground, background = self._waiting, self._waiting_background
        lanes = [background, foreground] if self._streak >= _FOREGROUND_STREAK else [foreground, background]
        for lane in lanes:
            with contextlib.suppress(KeyError):
                waiter = lane.pop(self._pace.may_run)
                self._streak = self._streak + 1 if lane is foreground else 0
                return waiter
        return None

    def _on_idle(self, worker: ImagingProcess) -> None:
        if self._started is not None and not self._started.done():
            self._failed_starts = 0
            if all(one.ready for one in self._workers):
                self._started.set_result(None)
        if worker.served >= self._settings.recycle_requests or (
            worker.served and worker.resident_bytes > self._settings.recycle_resident_bytes
        ):
            worker.retire()
            return
        self._failed_starts = 0
        self._hand_on(worker)

    def _on_exit(self, worker: ImagingProcess) -> None:
        self._workers.discard(worker)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        if self._closing:
            return
        if worker.ready:
            self._restarts += 1
            IMAGING_RESTARTS.inc()
            self._add_worker()
            return
        if self._started is not None and not self._started.done():
            self._started.set_exception(RuntimeError("an imaging worker ended before it was ready"))
            return
        self._failed_starts += 1
        delay_s = min(_LONGEST_RESTART_DELAY_S, 0.1 * 2**self._failed_starts)
        asyncio.get_running_loop().call_later(delay_s, self._add_worker)

    def _add_worker(self) -> None:
        if not self._closing:
            self._workers.add(ImagingProcess(self._options, self._on_idle, self._on_exit))
