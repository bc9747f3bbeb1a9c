"""Reads the messages of a request from their bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf import message_factory
from google.protobuf.message import DecodeError, Message

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer import BATCH_LIMIT
from camserve_server.rpc.audit import about
from camserve_server.rpc.call import Call, Proceed
from camserve_server.rpc.field_count import MOST_FIELDS, crowded_field


async def parse(call: Call, proceed: Proceed) -> None:
    """Replaces the bytes of `call.request` by messages, by the only one where one is taken; what is none is refused."""
    messages = _messages(call, call.request)
    call.request = messages if call.method.client_streaming else await anext(messages, None)
    if call.request is None:
        raise ApiError(Reason.PARAM_INVALID)
    await proceed()


async def _messages(call: Call, received: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    first = True
    async for data in received:
        message = _message(call, data)
        if first:
            call.about = about(message)
            first = False
        yield message


def _message(call: Call, data: bytes) -> Message:
    message = call.method.input_type
    if (number := crowded_field(data, message)) is not None:
        field = message.fields_by_number.get(number)
        if field and field.name == "inputs":
            raise ApiError(Reason.BATCH_TOO_LARGE, limit=BATCH_LIMIT)
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field=field.name if field else "", maximum_fields=MOST_FIELDS)
    try:
        return message_factory.GetMessageClass(message).FromString(data)
    except DecodeError:
        # Over REST the transcoder made the bytes, of JSON nested too deep or of text that is not UTF-8.
        raise ApiError(Reason.JSON_MALFORMED if call.has_json else Reason.PARAM_INVALID) from None
