"""Receives a streamed image with what is asked of it, into shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_options import InferOptions
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.rpc.call import Call
from camserve_server.rpc.form import request_from_fields, request_from_json
from camserve_server.rpc.interceptors.validate import check
from camserve_server.rpc.options import infer_options
from camserve_server.rpc.receiving import Declared, receive

_SIDES = "grad_cam.resolution."
_OPTIONS = frozenset({"model", "model_version", "resize", "grad_cam", "classify", "response"})
# Below this a copy is shorter than the way to a thread and back.
_INLINE_COPY_BYTES = 64 * 1024


@dataclass(slots=True)
class Upload:
    """A complete image and what is asked of it, as a message and as options; the caller closes `image`."""

    image: SharedBuffer
    asked: inference_pb2.InferRequest
    options: InferOptions


class Receiver:
    """Receives uploads within the limit of their tenant and a memory budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget

    async def receive(
        self,
        call: Call,
        requests: AsyncIterator[inference_pb2.InferUploadRequest],
        admit: Callable[[InferOptions], object],
    ) -> Upload:
        """Returns the image once it is whole. `admit` may refuse a raw one as soon as the options are known.

        Raises ApiError as `receive` does, MEDIA_UNSUPPORTED, PARAM_*, SERVICE_OVERLOADED when images in flight fill
        the memory set aside for them.
        """
        first = await anext(requests, None)
        if first is None:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        image = SharedBuffer.create("upload", self._budget, call.identity.tenant)
        # The options of a raw body are known before its bytes, those of a form after them.
        known: list[tuple[inference_pb2.InferRequest, InferOptions]] = []

        def begin(declared: Declared) -> _Memory:
            if not declared.in_form:
                known.append(_asked_of(_asked(call, first), declared))
                admit(known[0][1])
            return _Memory(image)

        try:
            received = await receive(
                call,
                first,
                requests,
                begin,
                size_bytes=first.size_bytes if first.HasField("size_bytes") else None,
                content_md5=first.content_md5,
                limit_bytes=call.tenant_limits.max_image_bytes,
            )
            asked, options = known[0] if known else _asked_in_form(call, first, received.declared)
        except BaseException:
            image.close()
            raise
        return Upload(image, asked, options)


class _Memory:
    """A buffer as a sink; large pieces are copied off the event loop."""

    def __init__(self, image: SharedBuffer) -> None:
        self._image = image
        self.size = 0

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > _INLINE_COPY_BYTES:
            await asyncio.to_thread(self._image.append, data)
        else:
            self._image.append(data)
        self.size = self._image.size


def _asked_in_form(
    call: Call, first: inference_pb2.InferUploadRequest, declared: Declared
) -> tuple[inference_pb2.InferRequest, InferOptions]:
    named = {field.name for field, _ in first.ListFields()} & _OPTIONS
    if declared.options and (named or first.HasField("request")):
        raise ApiError(Reason.PARAM_INVALID, "Options come in the query or in the form, not in both.")
    return _asked_of(declared.options or _asked(call, first), declared)


def _asked(call: Call, first: inference_pb2.InferUploadRequest) -> inference_pb2.InferRequest:
    """Returns the options of the first message as a request."""
    fields = {field.name for field, _ in first.ListFields()} & _OPTIONS
    if first.HasField("request"):
        if fields:
            raise ApiError(Reason.PARAM_INVALID, "Options come in `request` or in fields, not in both.")
        return request_from_json(first.request)
    request = inference_pb2.InferRequest(model=first.model, model_version=first.model_version)
    for name in fields - {"model", "model_version"}:
        getattr(request, name).CopyFrom(getattr(first, name))
    if sides := _sides_in_query(call):
        request.grad_cam.MergeFrom(request_from_fields(sides).grad_cam)
    return request


def _sides_in_query(call: Call) -> dict[str, str]:
    """Returns the members of `grad_cam.resolution`, which the transcoder cannot bind from a query."""
    if _SIDES not in call.query:
        return {}
    return {name: text for name, text in parse_qsl(call.query, max_num_fields=64) if name.startswith(_SIDES)}


def _asked_of(asked: inference_pb2.InferRequest, declared: Declared) -> tuple[inference_pb2.InferRequest, InferOptions]:
    # The interceptor saw the first message only, not what a form or a query spelt.
    check(asked)
    return asked, infer_options(
        asked,
        model=asked.model,
        model_version=asked.model_version,
        response=asked.response,
        media_type=declared.media_type,
        content_md5=declared.content_md5,
        file_name=declared.file_name,
    )
