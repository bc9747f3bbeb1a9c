"""Images in messages."""

from __future__ import annotations

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.rpc.upload import check_size


def open_image(image: inference_pb2.ImageInput, limit_bytes: int, budget: ByteBudget) -> SharedBuffer:
    """Returns the image's bytes in shared memory; for a thread, as it copies.

    Raises ApiError: IMAGE_SOURCE_REQUIRED, UPLOAD_TOO_LARGE, SERVICE_OVERLOADED when the budget is exhausted.
    """
    data = image.bytes  # once: every access makes a copy
    if not data:
        raise ApiError(Reason.IMAGE_SOURCE_REQUIRED)
    check_size(len(data), limit_bytes)
    buffer = SharedBuffer.create("image", budget)
    try:
        buffer.append(data)
    except BaseException:
        buffer.close()
        raise
    return buffer
