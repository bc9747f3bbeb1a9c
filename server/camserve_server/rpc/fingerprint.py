"""What makes two requests the same under one idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from google.protobuf.message import Message

from camserve.v1 import inference_pb2, jobs_pb2


def fingerprint(request: Message, streamed: bytes | memoryview | None = None) -> bytes:
    """Returns the SHA-256 of a request in which every image, `streamed` too, counts by its own SHA-256.

    What a caller declares of an image's type or MD5 only checks the bytes and does not count.
    """
    counted = type(request)()
    counted.CopyFrom(request)
    counted.DiscardUnknownFields()
    if streamed is not None and isinstance(counted, inference_pb2.InferRequest):
        counted.image.bytes = hashlib.sha256(streamed).digest()
    else:
        for image in _images(counted):
            if image.WhichOneof("source") == "bytes":
                image.bytes = hashlib.sha256(image.bytes).digest()
            image.ClearField("media_type")
            image.ClearField("content_md5")
    return hashlib.sha256(counted.SerializeToString(deterministic=True)).digest()


def _images(request: Message) -> Iterable[inference_pb2.ImageInput]:
    if isinstance(request, inference_pb2.InferRequest):
        return [request.image]
    if isinstance(request, jobs_pb2.CreateJobRequest):
        return [entry.image for entry in request.inputs]
    return ()
