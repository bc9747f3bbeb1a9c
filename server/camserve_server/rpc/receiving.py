"""Receives a streamed image, raw or multipart, into whatever takes its bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.api import httpbody_pb2

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.incoming import empty_image
from camserve_server.rpc.body_part import Body
from camserve_server.rpc.call import Call
from camserve_server.rpc.multipart_form import MultipartForm
from camserve_server.rpc.options import parse_md5

MULTIPART = "multipart/form-data"


class First(Protocol):
    """The message that a streamed image begins with."""

    @property
    def body(self) -> httpbody_pb2.HttpBody:
        """Carries bytes, and says of what type."""


class Part(Protocol):
    """Any message of a streamed image."""

    @property
    def body(self) -> httpbody_pb2.HttpBody | Body:
        """Carries bytes."""


class Sink(Protocol):
    """Takes the bytes of an image in order."""

    size: int

    async def append(self, data: bytes | bytearray | memoryview) -> None:
        """Adds bytes."""


S = TypeVar("S", bound=Sink)


@dataclass(frozen=True, slots=True)
class Declared:
    """What a caller says of an image: in the first message, or `in_form` in the part that holds it.

    `size_bytes` is None where it was not said; `content_md5` is the text as it came. `options` are those of the form,
    known once it has ended.
    """

    media_type: str | None
    content_md5: str | None
    size_bytes: int | None = None
    in_form: bool = False
    file_name: str | None = None
    options: inference_pb2.InferRequest | None = None


@dataclass(frozen=True, slots=True)
class Received(Generic[S]):
    """An image that came whole: what took its bytes, and what was said of it."""

    sink: S
    declared: Declared


async def receive(
    call: Call,
    first: First,
    rest: AsyncIterator[Part],
    begin: Callable[[Declared], S],
    *,
    size_bytes: int | None,
    content_md5: str | None,
    limit_bytes: int,
) -> Received[S]:
    """Returns the image once it is whole; `begin` makes what takes its bytes, and may refuse what is declared.

    `size_bytes` and `content_md5` are the first message's; an MD5 in a header or in metadata comes before that one, and
    over REST a length besides `size_bytes` must agree. More bytes than that are refused as soon as they come. Raises
    ApiError: UPLOAD_LENGTH_REQUIRED, UPLOAD_TOO_LARGE, IMAGE_SOURCE_REQUIRED, JSON_MALFORMED, PARAM_INVALID, and what
    `begin` and the sink raise.
    """
    media_type = first.body.content_type.partition(";")[0].strip().lower()
    if media_type == MULTIPART:
        return await _multipart(call, first, rest, begin, limit_bytes)
    length = _length(call) if call.rest else None
    if size_bytes is None:
        size_bytes = length
    elif length is not None and length != size_bytes:
        raise _other_bytes(size_bytes, length)
    md5 = call.metadata.get("content-md5") or content_md5
    declared = Declared(media_type, md5, size_bytes)
    # In a task of its own: on their way to the caller of this its messages would wake all who wait within each other.
    return await asyncio.create_task(_raw(first, rest, begin, declared, limit_bytes))


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises ApiError(UPLOAD_TOO_LARGE) for more bytes than the limit."""
    if size_bytes > limit_bytes:
        raise ApiError(Reason.UPLOAD_TOO_LARGE, limit_mb=limit_bytes / 1e6, actual_mb=size_bytes / 1e6)


async def _raw(
    first: First, rest: AsyncIterator[Part], begin: Callable[[Declared], S], declared: Declared, limit_bytes: int
) -> Received[S]:
    if declared.size_bytes is None and not declared.content_md5:
        raise ApiError(Reason.UPLOAD_LENGTH_REQUIRED)
    size_bytes = declared.size_bytes
    if size_bytes is not None:
        check_size(size_bytes, limit_bytes)
    sink = begin(declared)
    message: Part | None = first
    while message is not None:
        data = message.body.data
        if size_bytes is not None and sink.size + len(data) > size_bytes:
            raise _other_bytes(size_bytes, sink.size + len(data))
        await _append(sink, data, limit_bytes)
        message = await anext(rest, None)
    if size_bytes is not None and sink.size != size_bytes:
        raise _other_bytes(size_bytes, sink.size)
    if sink.size == 0:
        raise empty_image()
    return Received(sink, declared)


async def _multipart(
    call: Call, first: First, rest: AsyncIterator[Part], begin: Callable[[Declared], S], limit_bytes: int
) -> Received[S]:
    form = MultipartForm(first.body.content_type)
    declared_md5 = parse_md5(call.metadata.get("content-md5"))
    body_md5 = hashlib.md5(usedforsecurity=False) if declared_md5 else None
    sink: S | None = None
    chunk = first.body.data
    while True:
        if body_md5:
            await asyncio.to_thread(body_md5.update, chunk)
        for data in form.feed(chunk):
            sink = sink or begin(Declared(form.media_type, form.content_md5, in_form=True, file_name=form.file_name))
            await _append(sink, data, limit_bytes)
        message = await anext(rest, None)
        if message is None:
            break
        chunk = bytes(message.body.data)
    form.finish()
    # A client may mean the whole body or the file by the header; the file is checked when it is whole.
    whole_body = body_md5 is not None and body_md5.digest() == declared_md5
    md5 = form.content_md5 or (None if whole_body else call.metadata.get("content-md5"))
    if sink is None or not sink.size:
        raise empty_image()
    declared = Declared(form.media_type, md5, in_form=True, file_name=form.file_name, options=form.request)
    return Received(sink, declared)


async def _append(sink: Sink, data: bytes | bytearray | memoryview, limit_bytes: int) -> None:
    check_size(sink.size + len(data), limit_bytes)
    await sink.append(data)


def _other_bytes(declared_bytes: int, received_bytes: int) -> ApiError:
    return ApiError(
        Reason.PARAM_INVALID,
        "The upload has other bytes than it declared.",
        declared_bytes=declared_bytes,
        received_bytes=received_bytes,
    )


def _length(call: Call) -> int | None:
    length = call.metadata.get("x-camserve-content-length", "")
    return int(length) if length.isascii() and length.isdigit() and len(length) < 19 else None
