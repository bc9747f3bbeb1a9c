"""How many fields a message has, told from its bytes: read, a field of two bytes may take a hundred in memory."""

from __future__ import annotations

from functools import cache

from google.protobuf.descriptor import Descriptor

# More than a full batch with every option, 6,000, and the largest metadata, 17,000, have together.
MOST_FIELDS = 25_000

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MOST_VARINT_BYTES = 10
# As deep as protobuf reads.
_MOST_DEPTH = 100


class _CrowdedError(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def crowded_field(data: bytes, message: Descriptor, most: int = MOST_FIELDS) -> int | None:
    """Returns the number of the field in which a message has its first field too many, None where it has no more
    than `most`.

    The fields of messages within the message count as well. Raises ValueError for bytes that protobuf does not read,
    and for groups, which it does read: no message of ours has any, and what is in them would have to be told apart.
    """
    if len(data) <= most:
        return None
    try:
        _passed(data, 0, len(data), message, 0, most)
    except _CrowdedError as crowded:
        return crowded.number
    except IndexError:
        raise ValueError("the message is cut off") from None
    return None


def _passed(data: bytes, at: int, end: int, message: Descriptor, depth: int, left: int) -> int:
    """Returns how many fields are left after those from `at` to `end`."""
    if depth > _MOST_DEPTH:
        raise ValueError("the message is too deep")
    within = _messages_within(message)
    while at < end:
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = varint(data, at - 1)
        left -= 1
        if left < 0:
            raise _CrowdedError(tag >> 3)
        wire_type = tag & 7
        if wire_type == _LENGTH:
            length = data[at]
            at += 1
            if length > 0x7F:
                length, at = varint(data, at - 1)
            if at + length > end:
                raise ValueError("a field is longer than the message")
            inner = within.get(tag >> 3)
            if inner and length:
                try:
                    left = _passed(data, at, at + length, inner, depth + 1, left)
                except _CrowdedError:
                    raise _CrowdedError(tag >> 3) from None
            at += length
        elif wire_type == _VARINT:
            _, at = varint(data, at)
        elif wire_type == _FIXED64:
            at += 8
        elif wire_type == _FIXED32:
            at += 4
        else:
            raise ValueError("the message has a group")
    return left


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Returns the number that begins at a place, and the place after it.

    Raises ValueError for one that is too long, IndexError where the bytes end.
    """
    value = 0
    for place in range(_MOST_VARINT_BYTES):
        byte = data[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number is too long")


@cache
def _messages_within(message: Descriptor) -> dict[int, Descriptor]:
    return {field.number: field.message_type for field in message.fields if field.message_type}
