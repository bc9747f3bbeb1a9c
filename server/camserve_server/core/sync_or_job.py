"""One image: answered while the caller waits, or made a job of."""

from __future__ import annotations

import asyncio
import contextlib
import time

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer import InferService
from camserve_server.core.infer_options import BatchInput, ImageSource, InferOptions
from camserve_server.core.infer_result import InferResult
from camserve_server.core.job_intake import JobIntake, JobRequest, Receipt
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.imaging import DeferredError
from camserve_server.engine.model import ModelVersion

# The only item of a job that a call became.
ITEM_ID = "image"
# Who waits no longer than that would hardly get the receipt of a job.
_SHORTEST_S = 0.25


class SyncOrJob:
    """Answers at once up to `sync_bytes` and `sync_px`; what is larger, or would not be answered in time, waits."""

    def __init__(self, infer: InferService, intake: JobIntake, *, sync_bytes: int, sync_px: int) -> None:
        self._infer = infer
        self._intake = intake
        self._sync_bytes = sync_bytes
        self._sync_px = sync_px

    async def infer(
        self,
        tenant: str,
        source: ImageSource,
        options: InferOptions,
        *,
        background: bool = False,
        time_left_s: float | None = None,
        nonce: str | None = None,
    ) -> InferResult | Receipt:
        """Returns the answer, or the receipt of a job; `background` asks for the job, which is made once under a nonce.

        Raises ApiError as opening the image, InferService.infer and JobIntake.create do.
        """
        version = self.check(tenant, options, background=background)
        budget_s = self._infer.budget_s(time_left_s)
        if background or (budget_s >= _SHORTEST_S and not self._infer.in_time(tenant, version, budget_s)):
            return await self._job(tenant, source, options, nonce)
        ends = time.monotonic() + budget_s
        with await self._opened(source, budget_s) as image:
            if image.size <= self._sync_bytes:
                with contextlib.suppress(DeferredError):
                    return await self._infer.infer(
                        tenant,
                        image,
                        options,
                        time_left_s=max(0.0, ends - time.monotonic()),
                        defer_above_px=self._sync_px,
                    )
            return await self._job(tenant, opened(image), options, nonce)

    def check(self, tenant: str, options: InferOptions, *, background: bool = False) -> ModelVersion:
        """Refuses what can be refused before the image is read, as InferService does; a job may wait."""
        return self._infer.validate(options) if background else self._infer.check(tenant, options)

    async def _opened(self, source: ImageSource, within_s: float) -> SharedBuffer:
        try:
            async with asyncio.timeout(within_s):
                return await source.open()
        except TimeoutError:
            raise ApiError(Reason.TIMEOUT_EXCEEDED) from None

    async def _job(self, tenant: str, source: ImageSource, options: InferOptions, nonce: str | None) -> Receipt:
        return await self._intake.create(tenant, JobRequest([BatchInput(ITEM_ID, source, options)]), nonce=nonce)


def opened(image: SharedBuffer) -> ImageSource:
    """Returns a source that is there already."""

    async def give() -> SharedBuffer:
        return image

    return ImageSource(give)
