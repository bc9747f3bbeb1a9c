"""A client of the first release: its messages and methods, made of protos/released/v1.binpb alone.

They live in a descriptor pool of their own, so that nothing of today's generated code reaches them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

CONTRACT = Path(__file__).parents[2] / "protos" / "released" / "v1.binpb"


def _pool() -> tuple[DescriptorPool, dict[str, MethodDescriptor]]:
    pool, methods = DescriptorPool(), {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(CONTRACT.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
        for service in pool.FindFileByName(file.name).services_by_name.values():
            methods |= {method.full_name: method for method in service.methods}
    return pool, methods


POOL, METHODS = _pool()


def routes() -> set[tuple[str, str]]:
    """Returns the verb and path template of every REST route of the release."""
    found = set()
    for method in METHODS.values():
        # Read once more, because the pool of its own has its own extensions.
        options = descriptor_pb2.MethodOptions.FromString(method.GetOptions().SerializeToString())
        rule = options.Extensions[annotations_pb2.http]
        for each in (rule, *rule.additional_bindings):
            kind = each.WhichOneof("pattern")
            custom = (each.custom.kind, each.custom.path)
            found.add(custom if kind == "custom" else (str(kind).upper(), getattr(each, str(kind))))
    return found


async def call(
    channel: grpc.aio.Channel, name: str, *requests: dict[str, Any], metadata: Sequence[tuple[str, str]] = ()
) -> list[Any]:
    """Calls a method with requests as JSON has them; returns the answer's messages as the release reads them."""
    method = METHODS[name]
    make = message_factory.GetMessageClass(method.input_type)
    messages = [json_format.ParseDict(request, make()) for request in requests]
    path = f"/{method.containing_service.full_name}/{method.name}"
    coders = {
        "request_serializer": lambda message: message.SerializeToString(),
        "response_deserializer": message_factory.GetMessageClass(method.output_type).FromString,
    }
    options = {"metadata": tuple(metadata), "timeout": 30}
    if method.server_streaming:
        return [message async for message in channel.unary_stream(path, **coders)(messages[0], **options)]
    if method.client_streaming:
        return [await channel.stream_unary(path, **coders)(iter(messages), **options)]
    return [await channel.unary_unary(path, **coders)(messages[0], **options)]


def refusal(caught: grpc.aio.AioRpcError) -> tuple[Any, str]:
    """Returns the error object as the release reads it, and the reason of the ErrorInfo beside it."""
    status = status_pb2.Status.FromString(dict(caught.trailing_metadata() or ())["grpc-status-details-bin"])
    error = message_factory.GetMessageClass(POOL.FindMessageTypeByName("camserve.v1.ErrorObject"))()
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(error)
    assert status.details[1].Unpack(info)
    return error, info.reason


def unknown_values(message: Message, where: str = "") -> Iterator[str]:
    """Yields the enum values in a message that the release has no name for."""
    for field, value in message.ListFields():
        place = f"{where}.{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        values = value if field.is_repeated else [value]
        for each in values:
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from unknown_values(each, place)
            elif field.enum_type is not None and each not in field.enum_type.values_by_number:
                yield f"{place}: {each}"
