"""Messages made into results: fields of the same names, by the types that results declare."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from camserve_client.errors import CamserveError
from camserve_client.gen.inference_pb2 import ClassScore as ClassScoreMessage
from camserve_client.gen.inference_pb2 import Heatmap as HeatmapMessage
from camserve_client.heatmap import Heatmap
from camserve_client.refusals import of_object
from camserve_client.results import ClassScore
from camserve_client.structs import plain

R = TypeVar("R")
Reader = Callable[[Message], Any]


def result(kind: type[R], message: Message, **more: Any) -> R:
    """Returns a `kind`, of whose fields `more` has those that the message lacks."""
    readers = _readers(cast(Any, kind), cast(Any, type(message)))
    return kind(**{name: read(message) for name, read in readers.items()}, **more)


@cache
def _readers(kind: type[Any], message: type[Message]) -> Mapping[str, Reader]:
    """Returns how each field is read; fields that the message has none for are left out."""
    hints = typing.get_type_hints(kind)
    declared = message.DESCRIPTOR.fields_by_name
    names = [field.name for field in dataclasses.fields(kind) if field.name in declared]
    return {name: _reader(name, hints[name], declared[name]) for name in names}


def _reader(name: str, hint: Any, field: Any) -> Reader:
    if typing.get_origin(hint) in (UnionType, typing.Union) and NoneType in typing.get_args(hint):
        (hint,) = (one for one in typing.get_args(hint) if one is not NoneType)
        read = _value_reader(hint, field)
        if field.has_presence:
            return lambda message: read(getattr(message, name)) if message.HasField(name) else None
        return lambda message: read(getattr(message, name))
    if typing.get_origin(hint) is tuple:
        read = _value_reader(typing.get_args(hint)[0], field)
        return lambda message: tuple(map(read, getattr(message, name)))
    read = _value_reader(hint, field)
    return lambda message: read(getattr(message, name))


def _value_reader(hint: Any, field: Any) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        return {value.number: value.name for value in field.enum_type.values}.__getitem__
    if hint is datetime:
        return _time
    if hint is CamserveError:
        return of_object
    if hint is Heatmap:
        return _heatmap
    if hint is ClassScore:
        return _class_score
    if typing.get_origin(hint) is Mapping:
        return lambda value: plain(value) if isinstance(value, Message) else dict(value)
    if dataclasses.is_dataclass(hint):
        return lambda value: result(hint, value)  # type: ignore[arg-type]
    return _same


def _same(value: Any) -> Any:
    return value


def _time(value: Any) -> datetime:
    told: datetime = value.ToDatetime(UTC)
    return told


def _class_score(value: ClassScoreMessage) -> ClassScore:
    return ClassScore(value.label, value.id, value.prob)


def _heatmap(value: HeatmapMessage) -> Heatmap:
    return result(Heatmap, value, data=value.data_b64 if value.HasField("data_b64") else None)
