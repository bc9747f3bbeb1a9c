"""InferenceService: one image, one streamed image, or many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial

from camserve.v1 import inference_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer import BATCH_LIMIT, InferService
from camserve_server.core.infer_options import BatchInput
from camserve_server.core.infer_result import BatchOutcome, Heatmap, InferResult, Timings
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.rpc.call import Call
from camserve_server.rpc.options import infer_options
from camserve_server.rpc.status import error_object
from camserve_server.rpc.upload import Receiver, check_size

HEARTBEAT_S = 15.0


class InferenceServicer:
    """Converts between messages and the rules in core/infer."""

    def __init__(self, service: InferService, *, max_image_bytes: int, budget: ByteBudget) -> None:
        self._service = service
        self._budget = budget
        self._max_image_bytes = max_image_bytes
        self._receiver = Receiver(limit_bytes=max_image_bytes, budget=budget)

    async def infer(self, call: Call, request: pb.InferRequest) -> pb.InferResponse:
        """Classifies the image in the message."""
        options = infer_options(
            request,
            model=request.model,
            model_version=request.model_version,
            response=request.response,
            media_type=request.image.media_type,
            content_md5=request.image.content_md5,
        )
        self._service.check(options)
        with await asyncio.to_thread(self._open, request.image) as image:
            result = await self._service.infer(
                call.identity.tenant, image, options, time_left_s=call.context.time_remaining()
            )
        return _response(call, result)

    async def infer_upload(self, call: Call, requests: AsyncIterator[pb.InferUploadRequest]) -> pb.InferResponse:
        """Classifies the image that is streamed."""
        upload = await self._receiver.receive(call, requests, self._service.check)
        with upload.image as image:
            result = await self._service.infer(
                call.identity.tenant, image, upload.options, time_left_s=call.context.time_remaining()
            )
        return _response(call, result)

    async def infer_batch(self, call: Call, request: pb.InferBatchRequest) -> AsyncIterator[pb.BatchEvent]:
        """Yields an event per image as it completes, heartbeats in between, and `done` or `error` at the end."""
        inputs = self._batch_inputs(request)
        for options in {entry.options for entry in inputs}:
            self._service.check(options)
        succeeded = failed = 0
        try:
            async with (
                aclosing(self._service.infer_batch(call.identity.tenant, inputs)) as outcomes,
                # Closed first: it waits on the other one.
                aclosing(_with_heartbeats(outcomes)) as beating,
            ):
                async for outcome in beating:
                    if outcome is None:
                        yield pb.BatchEvent(event=pb.StreamEvent.heartbeat)
                        continue
                    succeeded += outcome.error is None
                    failed += outcome.error is not None
                    yield pb.BatchEvent(event=pb.StreamEvent.item, item=_batch_item(call, outcome))
        except ApiError as error:
            yield pb.BatchEvent(event=pb.StreamEvent.error, error=error_object(error, call.request_id))
            return
        summary = pb.BatchSummary(items=len(inputs), succeeded=succeeded, failed=failed)
        yield pb.BatchEvent(event=pb.StreamEvent.done, summary=summary)

    def _batch_inputs(self, request: pb.InferBatchRequest) -> list[BatchInput]:
        if not request.inputs:
            raise ApiError(Reason.BATCH_EMPTY)
        if len(request.inputs) > BATCH_LIMIT:
            raise ApiError(Reason.BATCH_TOO_LARGE, limit=BATCH_LIMIT, actual=len(request.inputs))
        if len({entry.id for entry in request.inputs}) < len(request.inputs):
            raise ApiError(Reason.BATCH_DUPLICATE_ID)
        return [
            BatchInput(
                entry.id,
                partial(self._open, entry.image),
                infer_options(
                    entry,
                    model=request.model,
                    model_version=request.model_version,
                    response=request.response,
                    media_type=entry.image.media_type,
                    content_md5=entry.image.content_md5,
                ),
            )
            for entry in request.inputs
        ]

    def _open(self, image: pb.ImageInput) -> SharedBuffer:
        data = image.bytes  # once: every access makes a copy
        if not data:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        check_size(len(data), self._max_image_bytes)
        buffer = SharedBuffer.create("image", self._budget)
        try:
            buffer.append(data)
        except BaseException:
            buffer.close()
            raise
        return buffer


async def _with_heartbeats(outcomes: AsyncIterator[BatchOutcome]) -> AsyncGenerator[BatchOutcome | None]:
    """Yields the outcomes, and None whenever none came for 15 seconds."""
    upcoming = asyncio.ensure_future(anext(outcomes, None))
    try:
        while True:
            done, _ = await asyncio.wait([upcoming], timeout=HEARTBEAT_S)
            if not done:
                yield None
                continue
            outcome = upcoming.result()
            if outcome is None:
                return
            upcoming = asyncio.ensure_future(anext(outcomes, None))
            yield outcome
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)


def _response(call: Call, result: InferResult) -> pb.InferResponse:
    version = result.version
    return pb.InferResponse(
        request_id=call.request_id,
        model=version.name,
        model_version=version.version,
        labels_version=version.labels_version,
        calibration_version=version.calibration_version,
        timings_ms=_timings(result.timings),
        image=_image(result),
        classes=_classes(result),
        heatmap=_heatmap(result.heatmap) if result.heatmap else None,
    )


def _batch_item(call: Call, outcome: BatchOutcome) -> pb.BatchItem:
    if outcome.result is None:
        error = outcome.error or ApiError(Reason.INTERNAL)
        return pb.BatchItem(id=outcome.id, status=pb.BatchItem.failed, error=error_object(error, call.request_id))
    result = outcome.result
    return pb.BatchItem(
        id=outcome.id,
        status=pb.BatchItem.succeeded,
        result=pb.BatchResult(
            classes=_classes(result),
            heatmap=_heatmap(result.heatmap) if result.heatmap else None,
            timings_ms=_timings(result.timings),
            image=_image(result),
            model_version=result.version.version,
        ),
    )


def _classes(result: InferResult) -> list[pb.ClassScore]:
    return [pb.ClassScore(id=score.id, label=score.label, prob=score.prob) for score in result.classes]


def _image(result: InferResult) -> pb.ImageInfo:
    return pb.ImageInfo(width=result.width, height=result.height, media_type=result.media_type, sha256=result.sha256)


def _timings(timings: Timings) -> pb.Timings:
    return pb.Timings(
        queue=round(timings.queue),
        inference=round(timings.inference),
        total=round(timings.total),
        decode=round(timings.decode),
        cam=round(timings.cam),
        render=round(timings.render),
    )


def _heatmap(heatmap: Heatmap) -> pb.Heatmap:
    options = heatmap.options
    message = pb.Heatmap(
        type="url" if heatmap.link else options.format,
        format=options.format,
        width=heatmap.width,
        height=heatmap.height,
        colormap=options.colormap,
        overlay=options.overlay,
        layer=heatmap.layer,
        method=options.method,
        target=heatmap.target,
        normalization="0-1",
        raw_min=heatmap.raw_min,
        raw_max=heatmap.raw_max,
        degenerate=heatmap.degenerate,
    )
    if heatmap.link:
        message.url = heatmap.link.url
        message.expires_at.FromSeconds(int(heatmap.link.expires_at))
    else:
        message.data_b64 = heatmap.data or b""
    return message
