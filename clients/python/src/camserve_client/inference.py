"""One image: sent within a message, as a stream or uploaded first, and waited for when it became a job."""

from __future__ import annotations

import asyncio
import dataclasses

from camserve_client.batches import removing
from camserve_client.calls import Calls
from camserve_client.contents import Content, ImageSource, ImageUrl, StorageId, content_of
from camserve_client.convert import result
from camserve_client.errors import ANSWER_INVALID, CamserveError, timed_out
from camserve_client.gen import inference_pb2 as pb
from camserve_client.gen import methods
from camserve_client.heatmap import Heatmap
from camserve_client.jobs import AsyncJob
from camserve_client.links import fetched
from camserve_client.options import Ask, Placement, fill
from camserve_client.results import InferResult, Result
from camserve_client.transport import Answer, Piece
from camserve_client.uploads import SLOWEST_BYTES_S, UNTYPED, OnProgress, Progress, upload

# What is larger becomes a job anyway, and is worth an upload that survives broken connections.
_STREAMED_BYTES = 20_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Inference:
    """What is asked of which model, and how the answer comes."""

    calls: Calls
    model: str
    version: str
    ask: Ask
    placement: Placement
    key: str | None
    on_progress: OnProgress | None

    async def of(self, image: ImageSource, timeout_s: float | None) -> InferResult:
        """Returns the answer within `timeout_s`; None is as long as every step may take by itself."""
        content: Content | ImageUrl | StorageId | None = None
        try:
            async with asyncio.timeout(timeout_s):
                async with self.calls.lifetime.waiting():
                    content = await content_of(image)
                if isinstance(content, Content) and content.size_bytes > _STREAMED_BYTES:
                    return await self._uploaded(content, timeout_s)
                return await self._done(await self._sent(content, timeout_s))
        except TimeoutError:
            raise timed_out(timeout_s) from None
        finally:
            if isinstance(content, Content):
                content.close()

    async def _uploaded(self, content: Content, timeout_s: float | None) -> InferResult:
        stored = await upload(self.calls, content, key=self.key, on_progress=self.on_progress)
        if self.key is not None:
            # The same call under the key names the same upload again.
            return await self._done(await self._sent(StorageId(stored.storage_id), timeout_s))
        async with removing(self.calls, [stored.storage_id]):
            return await self._done(await self._sent(StorageId(stored.storage_id), timeout_s))

    async def _sent(self, content: Content | ImageUrl | StorageId, timeout_s: float | None) -> Answer[pb.InferResponse]:
        if isinstance(content, Content) and content.size_bytes > self.calls.transport.inline_bytes:
            return await self._streamed(content, timeout_s)
        request = pb.InferRequest(model=self.model, model_version=self.version)
        request.response.heatmap = self.placement
        fill(request, self.ask)
        if isinstance(content, ImageUrl):
            request.image.url = content.url
        elif isinstance(content, StorageId):
            request.image.storage_id = content.storage_id
        else:
            request.image.bytes = await content.read(0, content.size_bytes)
        return await self.calls.unary(methods.INFER, request, key=self.key, timeout_s=timeout_s)

    async def _streamed(self, content: Content, timeout_s: float | None) -> Answer[pb.InferResponse]:
        size_bytes = content.size_bytes

        def request() -> pb.InferUploadRequest:
            message = pb.InferUploadRequest(model=self.model, model_version=self.version, size_bytes=size_bytes)
            message.response.heatmap = self.placement
            fill(message, self.ask)
            return message

        def sent(offset: int) -> None:
            if self.on_progress:
                self.on_progress(Progress(offset, size_bytes))

        return await self.calls.upload(
            methods.INFER_UPLOAD,
            request,
            lambda: Piece(content.chunks(0, size_bytes, sent), size_bytes, UNTYPED),
            key=self.key,
            timeout_s=self.calls.timeout_s + size_bytes / SLOWEST_BYTES_S if timeout_s is None else timeout_s,
        )

    async def _done(self, answer: Answer[pb.InferResponse]) -> InferResult:
        message = answer.message
        replayed = answer.headers.get("idempotency-replayed") == "true"
        if not message.HasField("job_id"):
            if not message.model_version:
                raise CamserveError(ANSWER_INVALID, "The answer is neither a result nor a job.")
            direct = result(InferResult, message, replayed=replayed)
            return dataclasses.replace(direct, heatmap=await self._heatmap(direct))
        job = AsyncJob(self.calls, message.job_id)
        info = await job.wait()
        async for item in job.results():
            if item.error:
                raise item.error
            if item.result:
                return InferResult(
                    classes=item.result.classes,
                    heatmap=await self._heatmap(item.result),
                    timings_ms=item.result.timings_ms,
                    image=item.result.image,
                    model_version=item.result.model_version,
                    content_sha256=item.result.content_sha256,
                    request_id=message.request_id,
                    model=info.model,
                    job_id=job.id,
                    replayed=replayed,
                )
        raise CamserveError(ANSWER_INVALID, f"The job {job.id} is {info.status} and has no result.")

    async def _heatmap(self, answer: Result) -> Heatmap | None:
        """Returns the heatmap with its data where that was asked for, also one too large to come within the answer."""
        if answer.heatmap is None or self.placement == "url":
            return answer.heatmap
        return await fetched(self.calls, answer.heatmap)
