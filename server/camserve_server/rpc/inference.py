"""InferenceService: one image, one streamed image, or many."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from camserve.v1 import inference_pb2 as pb
from camserve_server.base.errors import ApiError
from camserve_server.core.infer import InferService
from camserve_server.core.infer_options import ImageSource, InferOptions
from camserve_server.core.job_intake import Receipt
from camserve_server.core.sync_or_job import SyncOrJob, opened
from camserve_server.engine.buffers import ByteBudget
from camserve_server.rpc.answers import batch_item, infer_receipt, infer_response
from camserve_server.rpc.batch_inputs import batch_inputs
from camserve_server.rpc.call import Call
from camserve_server.rpc.fingerprint import fingerprint
from camserve_server.rpc.heartbeats import with_heartbeats
from camserve_server.rpc.images import Images
from camserve_server.rpc.infer_upload import Receiver
from camserve_server.rpc.options import infer_options
from camserve_server.rpc.status import error_object


class InferenceServicer:
    """Converts between messages and the rules in core/infer; `prefix` begins every link."""

    def __init__(
        self,
        service: InferService,
        single: SyncOrJob,
        images: Images,
        *,
        prefix: str,
        budget: ByteBudget,
    ) -> None:
        self._service = service
        self._single = single
        self._images = images
        self._prefix = prefix
        self._receiver = Receiver(budget)

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
        self._single.check(call.identity.tenant, options, background=call.prefers_async)
        return await self._answer(call, self._images.source(call, request.image), options)

    def refuse_early(self, call: Call) -> None:
        """Refuses a call for one image that has no chance of an answer now, before it costs anything.

        Raises ApiError as InferService.check_room does.
        """
        request = call.request
        if isinstance(request, pb.InferRequest) and not call.prefers_async:
            self._service.check_room(call.identity.tenant, InferOptions(request.model, request.model_version))

    async def infer_upload(self, call: Call, requests: AsyncIterator[pb.InferUploadRequest]) -> pb.InferResponse:
        """Classifies the image that is streamed."""

        def check(options: InferOptions) -> None:
            self._single.check(call.identity.tenant, _routed(call, options), background=call.prefers_async)

        # The answer to a call with a key may be there already.
        upload = await self._receiver.receive(call, requests, _admit if call.has_key else check)
        with upload.image as image:
            answer: pb.InferResponse = await call.once(
                lambda: fingerprint(upload.asked, image.view()),
                lambda: self._answer(call, opened(image), upload.options),
            )
            return answer

    async def infer_batch(self, call: Call, request: pb.InferBatchRequest) -> AsyncIterator[pb.BatchEvent]:
        """Yields an event per image as it completes, heartbeats in between, and `done` or `error` at the end."""
        inputs = batch_inputs(call, self._images, request)
        self._service.validate_each(inputs)
        self._service.check(call.identity.tenant, inputs[0].options)
        succeeded = failed = 0
        try:
            async with (
                aclosing(self._service.infer_batch(call.identity.tenant, inputs)) as outcomes,
                # Closed first: it waits on the other one.
                aclosing(with_heartbeats(outcomes)) as beating,
            ):
                async for outcome in beating:
                    if outcome is None:
                        yield pb.BatchEvent(event=pb.StreamEvent.heartbeat)
                        continue
                    succeeded += outcome.error is None
                    failed += outcome.error is not None
                    yield pb.BatchEvent(event=pb.StreamEvent.item, item=batch_item(call, outcome))
        except ApiError as error:
            yield pb.BatchEvent(event=pb.StreamEvent.error, error=error_object(error, call.request_id))
            return
        summary = pb.BatchSummary(items=len(inputs), succeeded=succeeded, failed=failed)
        yield pb.BatchEvent(event=pb.StreamEvent.done, summary=summary)

    async def _answer(self, call: Call, image: ImageSource, options: InferOptions) -> pb.InferResponse:
        outcome = await self._single.infer(
            call.identity.tenant,
            image,
            _routed(call, options),
            background=call.prefers_async,
            time_left_s=call.context.time_remaining(),
            nonce=call.nonce,
        )
        if isinstance(outcome, Receipt):
            return infer_receipt(call, outcome, self._prefix)
        return infer_response(call, outcome)


def _routed(call: Call, options: InferOptions) -> InferOptions:
    return replace(options, model_version=call.version(options.model, options.model_version))


def _admit(_: InferOptions) -> None:
    """Refuses nothing."""
