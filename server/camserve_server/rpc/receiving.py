"""Receives a streamed image, raw or multipart, into whatever takes its bytes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from google.api import httpbody_pb2

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.incoming import empty_image
from camserve_server.rpc.body_part import Body
from camserve_server.rpc.call import Call
from camserve_server.rpc.multipart_form import MultipartForm
from camserve_server.rpc.options import one_md5, parse_md5

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
    """What a caller says of an image: with the first message, or `in_form` in the part that holds it too.

    `size_bytes` is None where it was not said; `content_md5` is the text as it came, the same wherever it was said.
    Once a form has ended `options` are known, and whether a header means its file: `has_md5` is true where it may.
    """

    media_type: str | None
    content_md5: str | None
    size_bytes: int | None
    has_md5: bool
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

    `size_bytes` and `content_md5` are the first message's. Whatever else is declared must agree: over REST the length
    of a raw body, an MD5 in a header or in metadata, and that of a form's part; only of a form a header may mean the
    whole body instead. More bytes than declared are refused as soon as they come. Raises ApiError:
    UPLOAD_LENGTH_REQUIRED, UPLOAD_TOO_LARGE, IMAGE_SOURCE_REQUIRED, IMAGE_BASE64_INVALID, IMAGE_MD5_MISMATCH,
    JSON_MALFORMED, PARAM_INVALID, and what `begin` and the sink raise.
    """
    media_type = first.body.content_type.partition(";")[0].strip().lower()
    header_md5 = call.metadata.get("content-md5")
    if media_type == MULTIPART:
        in_form = Declared(None, content_md5, size_bytes, has_md5=bool(header_md5), in_form=True)
        return await _multipart(first, rest, begin, in_form, header_md5, limit_bytes)
    length = _length(call) if call.rest else None
    if size_bytes is None:
        size_bytes = length
    elif length is not None and length != size_bytes:
        raise _other_bytes(size_bytes, length)
    md5 = one_md5(header_md5, content_md5)
    declared = Declared(media_type, md5, size_bytes, has_md5=md5 is not None)
    # In a task of its own: on their way to the caller of this its messages would wake all who wait within each other.
    return await asyncio.create_task(_raw(first, rest, begin, declared, limit_bytes))


def check_size(size_bytes: int, limit_bytes: int) -> None:
    """Raises ApiError(UPLOAD_TOO_LARGE) for more bytes than the limit."""
    if size_bytes > limit_bytes:
        raise ApiError(Reason.UPLOAD_TOO_LARGE, limit_mb=limit_bytes / 1e6, actual_mb=size_bytes / 1e6)


async def _raw(
    first: First, rest: AsyncIterator[Part], begin: Callable[[Declared], S], declared: Declared, limit_bytes: int
) -> Received[S]:
    size_bytes = declared.size_bytes
    if size_bytes is not None:
        check_size(size_bytes, limit_bytes)
    elif not declared.has_md5:
        raise ApiError(Reason.UPLOAD_LENGTH_REQUIRED)
    sink = begin(declared)
    message: Part | None = first
    while message is not None:
        await _append(sink, message.body.data, size_bytes, limit_bytes)
        message = await anext(rest, None)
    _check_whole(sink, size_bytes)
    return Received(sink, declared)


async def _multipart(
    first: First,
    rest: AsyncIterator[Part],
    begin: Callable[[Declared], S],
    declared: Declared,
    header_md5: str | None,
    limit_bytes: int,
) -> Received[S]:
    form = MultipartForm(first.body.content_type)
    size_bytes = declared.size_bytes
    if size_bytes is not None:
        check_size(size_bytes, limit_bytes)
    told_md5 = parse_md5(header_md5)
    body_md5 = hashlib.md5(usedforsecurity=False) if told_md5 else None
    sink: S | None = None
    chunk = first.body.data
    while True:
        if body_md5:
            await asyncio.to_thread(body_md5.update, chunk)
        for data in form.feed(chunk):
            if sink is None:
                declared = _declared_in(form, declared)
                sink = begin(declared)
            await _append(sink, data, size_bytes, limit_bytes)
        message = await anext(rest, None)
        if message is None:
            break
        chunk = bytes(message.body.data)
    form.finish()
    if sink is None:
        raise empty_image()
    _check_whole(sink, size_bytes)
    # A client may mean the whole body or the file by the header; the file is checked when it is whole.
    of_file = None if body_md5 and body_md5.digest() == told_md5 else header_md5
    md5 = one_md5(declared.content_md5, of_file)
    return Received(sink, replace(declared, content_md5=md5, options=form.request))


def _declared_in(form: MultipartForm, declared: Declared) -> Declared:
    """Returns what is declared beside a form with what its file part says."""
    md5 = one_md5(form.content_md5, declared.content_md5)
    return replace(
        declared,
        media_type=form.media_type,
        content_md5=md5,
        has_md5=declared.has_md5 or md5 is not None,
        file_name=form.file_name,
    )


async def _append(sink: Sink, data: bytes | bytearray | memoryview, size_bytes: int | None, limit_bytes: int) -> None:
    received_bytes = sink.size + len(data)
    if size_bytes is not None and received_bytes > size_bytes:
        raise _other_bytes(size_bytes, received_bytes)
    check_size(received_bytes, limit_bytes)
    await sink.append(data)


def _check_whole(sink: Sink, size_bytes: int | None) -> None:
    if size_bytes is not None and sink.size != size_bytes:
        raise _other_bytes(size_bytes, sink.size)
    if sink.size == 0:
        raise empty_image()


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
