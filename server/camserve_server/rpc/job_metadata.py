"""What a caller keeps with a job: a message on the wire, JSON in events, and nothing that takes long in between."""

from __future__ import annotations

import asyncio
import math
import zlib
from typing import Any
from weakref import WeakValueDictionary

import orjson
from google.protobuf import struct_pb2

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.job_intake import METADATA_LIMIT_BYTES
from camserve_server.core.jobs import MUCH_BYTES
from camserve_server.stores.jobs import Metadata

# Above this a double does not tell whole numbers apart.
_MOST_EXACT = 2.0**53
# Of the hundred messages in each other that protobuf reads a list takes two, and an object three.
_MOST_NESTED = 30
# As a message, a list of numbers of one digit takes the most: 11 bytes for the two of a digit and its comma.
_MOST_OF_JSON = 6
# Next to no effort: of such a list even that leaves little.
_LEVEL = 1


class Turns:
    """One turn at a time for each tenant, however many of its calls wait."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def of(self, tenant: str) -> asyncio.Lock:
        """Returns what a call of the tenant holds during its turn."""
        return self._locks.setdefault(tenant, asyncio.Lock())


class MetadataReader:
    """Reads what requests say: much of it, which takes 10 ms, on a thread, of each tenant one at a time."""

    def __init__(self) -> None:
        self._turns = Turns()

    async def read(self, tenant: str, struct: struct_pb2.Struct) -> Metadata:
        """Returns the metadata.

        Raises ApiError: PARAM_OUT_OF_RANGE for too much or too many in each other, PARAM_INVALID for a number that JSON
        has not.
        """
        struct.DiscardUnknownFields()
        size_bytes = struct.ByteSize()
        if size_bytes > _MOST_OF_JSON * METADATA_LIMIT_BYTES:
            raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="metadata", maximum_bytes=METADATA_LIMIT_BYTES)
        if size_bytes < MUCH_BYTES:
            return _read(struct)
        async with self._turns.of(tenant):
            return await asyncio.to_thread(_read, struct)


def fill_metadata(struct: struct_pb2.Struct, metadata: Metadata) -> None:
    """Makes an empty message of a job what its request said."""
    struct.SetInParent()
    if metadata.packed:
        struct.MergeFromString(zlib.decompress(metadata.packed))
    else:
        struct.update(orjson.loads(metadata.json))


def _read(struct: struct_pb2.Struct) -> Metadata:
    json = orjson.dumps(_fields(struct, _MOST_NESTED), option=orjson.OPT_SORT_KEYS)
    return Metadata(json, zlib.compress(struct.SerializeToString(), _LEVEL))


def _fields(struct: struct_pb2.Struct, levels: int) -> dict[str, Any]:
    return {key: _plain(value, levels - 1) for key, value in struct.fields.items()}


def _plain(value: struct_pb2.Value, levels: int) -> Any:
    """Returns a value, of at most so many levels, as JSON has it: whole numbers without a point, as they were sent."""
    # Asked first, because it is what many come of, and to ask for the kind takes longer.
    if number := value.number_value:
        return _number(number)
    kind = value.WhichOneof("kind")
    if kind in ("struct_value", "list_value") and levels == 0:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="metadata", maximum_depth=_MOST_NESTED)
    if kind == "struct_value":
        return _fields(value.struct_value, levels)
    if kind == "list_value":
        return [_plain(entry, levels - 1) for entry in value.list_value.values]
    if kind is None:
        # A native caller may leave it open, which over REST could not be said.
        value.null_value = struct_pb2.NULL_VALUE
        return None
    if kind == "null_value":
        return None
    return value.string_value if kind == "string_value" else value.bool_value if kind == "bool_value" else 0


def _number(number: float) -> int | float:
    if -_MOST_EXACT < number < _MOST_EXACT:
        whole = int(number)
        return whole if whole == number else number
    if not math.isfinite(number):
        raise ApiError(Reason.PARAM_INVALID, field="metadata")
    return number
