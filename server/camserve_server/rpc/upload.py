"""Receives a streamed image, raw or multipart, into shared memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_options import InferOptions
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.rpc.call import Call
from camserve_server.rpc.form import request_from_fields, request_from_json
from camserve_server.rpc.interceptors.validate import check
from camserve_server.rpc.multipart_form import MultipartForm
from camserve_server.rpc.options import infer_options, parse_md5

MULTIPART = "multipart/form-data"
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
    """Receives uploads within a byte limit and a memory budget."""

    def __init__(self, *, limit_bytes: int, budget: ByteBudget) -> None:
        self._limit_bytes = limit_bytes
        self._budget = budget

    async def receive(
        self,
        call: Call,
        requests: AsyncIterator[inference_pb2.InferUploadRequest],
        admit: Callable[[InferOptions], object],
    ) -> Upload:
        """Returns the image once it is whole. `admit` may refuse as soon as the options are known.

        Raises ApiError: UPLOAD_LENGTH_REQUIRED, UPLOAD_TOO_LARGE, IMAGE_SOURCE_REQUIRED, MEDIA_UNSUPPORTED,
        JSON_MALFORMED, PARAM_*, SERVICE_OVERLOADED when images in flight fill the memory set aside for them.
        """
        first = await anext(requests, None)
        if first is None:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        media_type = first.body.content_type.partition(";")[0]
        media_type = media_type.strip().lower()
        image = SharedBuffer.create("upload", self._budget)
        try:
            if media_type == MULTIPART:
                asked, options = await self._multipart(call, first, requests, image)
            else:
                asked, options = await self._raw(call, first, requests, image, media_type, admit)
        except BaseException:
            image.close()
            raise
        return Upload(image, asked, options)

    async def _raw(
        self,
        call: Call,
        first: inference_pb2.InferUploadRequest,
        requests: AsyncIterator[inference_pb2.InferUploadRequest],
        image: SharedBuffer,
        media_type: str,
        admit: Callable[[InferOptions], object],
    ) -> tuple[inference_pb2.InferRequest, InferOptions]:
        declared = _declared_length(call, first)
        md5 = (call.metadata.get("content-md5") if call.rest else None) or first.content_md5
        if declared is None and not md5:
            raise ApiError(Reason.UPLOAD_LENGTH_REQUIRED)
        if declared is not None:
            check_size(declared, self._limit_bytes)
        asked = _asked(call, first)
        options = _options(asked, media_type=media_type, content_md5=md5)
        admit(options)
        await self._append(image, first.body.data)
        async for request in requests:
            await self._append(image, request.body.data)
        if declared is not None and image.size != declared:
            raise ApiError(
                Reason.PARAM_INVALID,
                "The upload has other bytes than it declared.",
                declared_bytes=declared,
                received_bytes=image.size,
            )
        if image.size == 0:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        return asked, options

    async def _multipart(
        self,
        call: Call,
        first: inference_pb2.InferUploadRequest,
        requests: AsyncIterator[inference_pb2.InferUploadRequest],
        image: SharedBuffer,
    ) -> tuple[inference_pb2.InferRequest, InferOptions]:
        form = MultipartForm(first.body.content_type)
        declared_md5 = parse_md5(call.metadata.get("content-md5"))
        body_md5 = hashlib.md5(usedforsecurity=False) if declared_md5 else None
        chunk = first.body.data
        while True:
            if body_md5:
                await asyncio.to_thread(body_md5.update, chunk)
            for data in form.feed(chunk):
                await self._append(image, data)
            request = await anext(requests, None)
            if request is None:
                break
            chunk = request.body.data
        form.finish()
        if form.request and ({field.name for field, _ in first.ListFields()} & _OPTIONS or first.HasField("request")):
            raise ApiError(Reason.PARAM_INVALID, "Options come in the query or in the form, not in both.")
        asked = form.request or _asked(call, first)
        # A client may mean the whole body or the file by the header; the file is checked when it is decoded.
        whole_body = body_md5 is not None and body_md5.digest() == declared_md5
        md5 = form.content_md5 or (None if whole_body else call.metadata.get("content-md5"))
        return asked, _options(asked, media_type=form.media_type, content_md5=md5, file_name=form.file_name)

    async def _append(self, image: SharedBuffer, data: bytes | bytearray) -> None:
        check_size(image.size + len(data), self._limit_bytes)
        if len(data) > _INLINE_COPY_BYTES:
            await asyncio.to_thread(image.append, data)
        else:
            image.append(data)


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises ApiError(UPLOAD_TOO_LARGE) for more bytes than the limit."""
    if size_bytes > limit_bytes:
        limit_mb, actual_mb = round(limit_bytes / 1e6, 3), round(size_bytes / 1e6, 3)
        raise ApiError(Reason.UPLOAD_TOO_LARGE, limit_mb=limit_mb, actual_mb=actual_mb)


def _declared_length(call: Call, first: inference_pb2.InferUploadRequest) -> int | None:
    if call.rest:
        length = call.metadata.get("x-camserve-content-length", "")
        return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
    return first.size_bytes if first.HasField("size_bytes") else None


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
    query = urlsplit(call.metadata.get("x-envoy-original-path", "")).query
    if _SIDES not in query:
        return {}
    return {name: text for name, text in parse_qsl(query, max_num_fields=64) if name.startswith(_SIDES)}


def _options(
    asked: inference_pb2.InferRequest,
    *,
    media_type: str | None,
    content_md5: str | None,
    file_name: str | None = None,
) -> InferOptions:
    # The interceptor saw the first message only, not what a form or a query spelt.
    check(asked)
    return infer_options(
        asked,
        model=asked.model,
        model_version=asked.model_version,
        response=asked.response,
        media_type=media_type,
        content_md5=content_md5,
        file_name=file_name,
    )
