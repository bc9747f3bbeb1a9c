"""Messages of a stream that carry nothing but bytes, read where they came: protobuf would copy those twice."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor

from camserve_server.rpc.field_count import varint

# What is shorter is copied in less time than this takes.
_LEAST_BYTES = 64 * 1024
_BODY, _DATA = "google.api.HttpBody", "data"
_LENGTH = 2
_MOST_TAG = 0x7F
# As many as protobuf reads of a length.
_MOST_LENGTH_BYTES = 5


class Body(NamedTuple):
    """Stands for a google.api.HttpBody that has only data."""

    data: memoryview


class BodyPart(NamedTuple):
    """Stands for a message that has only a body."""

    body: Body


def body_part(data: bytes, message: Descriptor) -> BodyPart | None:
    """Returns a view of the bytes of a long message that is nothing but `body.data`, None for any other."""
    tags = _tags(message)
    if tags is None or len(data) < _LEAST_BYTES:
        return None
    at = 0
    with suppress(ValueError):
        for tag in tags:
            if data[at] != tag:
                return None
            length, start = varint(data, at + 1)
            if start - at - 1 > _MOST_LENGTH_BYTES or start + length != len(data):
                return None
            at = start
        return BodyPart(Body(memoryview(data)[at:]))
    return None


@cache
def _tags(message: Descriptor) -> tuple[int, int] | None:
    """Returns what `body` and the data in it begin with, None where a message has no such fields."""
    field = message.fields_by_name.get("body")
    if field is None or field.message_type is None or field.message_type.full_name != _BODY:
        return None
    body, data = (each.number << 3 | _LENGTH for each in (field, field.message_type.fields_by_name[_DATA]))
    return (body, data) if max(body, data) <= _MOST_TAG else None
