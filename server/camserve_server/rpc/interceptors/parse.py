"""Reads the messages of a request from their bytes."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from functools import cache

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer import BATCH_LIMIT
from camserve_server.rpc.audit import about
from camserve_server.rpc.body_part import BodyPart, body_part
from camserve_server.rpc.call import Call, Proceed
from camserve_server.rpc.field_count import MOST_FIELDS, crowded_field

# Requests that carry no image are short; anybody may make those of public methods.
_MOST_WITHOUT_IMAGE_BYTES = 1 << 20
_MOST_OF_STRANGERS_BYTES = 64 * 1024


async def parse(call: Call, proceed: Proceed) -> None:
    """Replaces the bytes of `call.request` by messages, by the only one where one is taken; what is none is refused."""
    messages = _messages(call, call.request)
    call.request = messages if call.method.client_streaming else await anext(messages, None)
    if call.request is None:
        raise ApiError(Reason.PARAM_INVALID)
    await proceed()


async def _messages(call: Call, received: AsyncIterator[bytes]) -> AsyncIterator[Message | BodyPart]:
    first = True
    async for data in received:
        if first:
            message = _message(call, data)
            call.about = about(message)
            first = False
            yield message
        else:
            yield body_part(data, call.method.input_type) or _message(call, data)


def _message(call: Call, data: bytes) -> Message:
    message = call.method.input_type
    if not call.method.client_streaming and len(data) > _most_bytes(message, public=call.policy.public):
        raise ApiError(Reason.BODY_TOO_LARGE)
    try:
        crowded = crowded_field(data, message)
        if crowded is None:
            return message_factory.GetMessageClass(message).FromString(data)
    except (DecodeError, ValueError):
        # Over REST the transcoder made the bytes, of JSON nested too deep or of text that is not UTF-8.
        raise ApiError(Reason.JSON_MALFORMED if call.has_json else Reason.PARAM_INVALID) from None
    field = message.fields_by_number.get(crowded)
    if field and field.name == "inputs":
        raise ApiError(Reason.BATCH_TOO_LARGE, limit=BATCH_LIMIT)
    raise ApiError(Reason.PARAM_OUT_OF_RANGE, field=field.name if field else "", maximum_fields=MOST_FIELDS)


@cache
def _most_bytes(message: Descriptor, *, public: bool) -> float:
    if public:
        return _MOST_OF_STRANGERS_BYTES
    return math.inf if _has_bytes(message, frozenset()) else _MOST_WITHOUT_IMAGE_BYTES


def _has_bytes(message: Descriptor, above: frozenset[str]) -> bool:
    above |= {message.full_name}
    return any(
        field.type == field.TYPE_BYTES
        or (field.message_type and field.message_type.full_name not in above and _has_bytes(field.message_type, above))
        for field in message.fields
    )
