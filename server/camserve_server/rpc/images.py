"""Images in messages."""

from __future__ import annotations

import asyncio
from functools import partial

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.image_urls import ImageUrls
from camserve_server.core.incoming import empty_image
from camserve_server.core.infer_options import ImageSource
from camserve_server.core.uploads import UploadService
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.rpc.call import Call
from camserve_server.rpc.receiving import check_size


class Images:
    """Finds the bytes of images, within the limit of their tenant and a memory budget."""

    def __init__(self, urls: ImageUrls, uploads: UploadService, *, budget: ByteBudget) -> None:
        self._urls = urls
        self._uploads = uploads
        self._budget = budget

    def source(self, call: Call, image: inference_pb2.ImageInput) -> ImageSource:
        """Returns where an image of a call comes from.

        Raises ApiError: IMAGE_SOURCE_REQUIRED, IMAGE_URL_NOT_ALLOWED. Opening it may raise IMAGE_SOURCE_REQUIRED,
        UPLOAD_TOO_LARGE, UPLOAD_NOT_FOUND, IMAGE_FETCH_FAILED, SERVICE_OVERLOADED when the budget is exhausted.
        """
        tenant = call.identity.tenant
        kind = image.WhichOneof("source")
        if kind == "url":
            self._urls.check(image.url)
            return ImageSource(partial(self._urls.open, tenant, image.url), image.url)
        if kind == "storage_id":
            return ImageSource(partial(self._uploads.open, tenant, image.storage_id), storage_id=image.storage_id)
        if kind is None:
            raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
        return ImageSource(partial(asyncio.to_thread, self._copy, tenant, image, call.tenant_limits.max_image_bytes))

    def _copy(self, tenant: str, image: inference_pb2.ImageInput, limit_bytes: int) -> SharedBuffer:
        data = image.bytes  # once: every access makes a copy
        if not data:
            raise empty_image()
        check_size(len(data), limit_bytes)
        buffer = SharedBuffer.create("image", self._budget, tenant)
        try:
            buffer.append(data)
        except BaseException:
            buffer.close()
            raise
        return buffer
