"""One image: answered while the caller waits, or made a job of."""

from __future__ import annotations

from camserve_server.core.infer import InferService
from camserve_server.core.infer_options import InferOptions
from camserve_server.core.infer_result import InferResult
from camserve_server.core.job_intake import JobInput, JobIntake, JobRequest, Receipt
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.imaging import DeferredError

# The only item of a job that a call became.
ITEM_ID = "image"


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
        image: SharedBuffer,
        options: InferOptions,
        *,
        background: bool = False,
        time_left_s: float | None = None,
    ) -> InferResult | Receipt:
        """Returns the answer, or the receipt of a job; `background` asks for the job.

        Raises ApiError as InferService.infer and JobIntake.create do.
        """
        version = self._infer.check(options)
        in_time = self._infer.in_time(version, self._infer.budget_s(time_left_s))
        if background or image.size > self._sync_bytes or not in_time:
            return await self._job(tenant, image, options)
        try:
            return await self._infer.infer(
                tenant, image, options, time_left_s=time_left_s, defer_above_px=self._sync_px
            )
        except DeferredError:
            return await self._job(tenant, image, options)

    async def _job(self, tenant: str, image: SharedBuffer, options: InferOptions) -> Receipt:
        async def give() -> SharedBuffer:
            return image

        return await self._intake.create(tenant, JobRequest([JobInput(ITEM_ID, give, options)]))
