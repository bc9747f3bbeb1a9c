"""Calls over native gRPC, with messages made from the description of the protos that the kit carries."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Iterable, Mapping
from importlib import resources
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, json_format
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from camserve_conformance.answer import OK, Answer, Sent
from camserve_conformance.options import Options
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.pace import Pace, pause_of
from camserve_conformance.routes import ROUTES

_PACKAGE = "camserve.v1"
_DETAILS = "grpc-status-details-bin"
_TRIES = 5
# What gRPC itself says where nobody does; a service that says so has metadata.
_NO_ANSWER = ("UNAVAILABLE", "DEADLINE_EXCEEDED")
_SHOWN_BYTES = 2000
_CHUNK_BYTES = 65536
_MESSAGE_BYTES = 64 * 1024 * 1024


def _pool() -> DescriptorPool:
    described = (resources.files("camserve_conformance") / "contract.binpb").read_bytes()
    pool = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(described).file:
        pool.Add(file)
    return pool


# Its own, so that the kit runs in a process that has other copies of the same messages.
POOL = _pool()


class Native:
    """One deployment's gRPC port."""

    def __init__(self, options: Options, pace: Pace) -> None:
        self._pace = pace
        self._token = options.token
        self._timeout_s = options.check_timeout_s
        self._by_edge = options.grpc_edge
        target = options.grpc.partition("://")[2] or options.grpc
        sizes = [("grpc.max_receive_message_length", _MESSAGE_BYTES), ("grpc.max_send_message_length", _MESSAGE_BYTES)]
        if _is_encrypted(options.grpc):
            authorities = options.ca.read_bytes() if options.ca else None
            self._channel = grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authorities), options=sizes)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=sizes)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close(None)

    async def call(
        self,
        operation: str,
        fields: Mapping[str, Any] | None = None,
        *,
        token: str | None = "",
        metadata: Mapping[str, str] | None = None,
        data: bytes | None = None,
        media_type: str = "",
        obeys_limits: bool = True,
    ) -> Answer:
        """Calls an operation of the surface; a refusal for the rate is waited for and tried again.

        `fields` are the request as proto3 JSON has it. `data` is streamed in pieces as the request's `body`. Raises
        BlockedError when there is no answer at all, and when the refusal for the rate stays.
        """
        token = self._token if token == "" else token
        pairs = ({"authorization": f"Bearer {token}"} if token else {}) | dict(metadata or {})
        for tries_left in reversed(range(_TRIES)):
            answer = await self._once(operation, fields or {}, pairs, data, media_type)
            pause_s = pause_of(answer.headers.get("retry-after", ""))
            # Without the header it is no refusal for the rate: gRPC says the same of what is too large.
            is_refused = answer.status == "RESOURCE_EXHAUSTED" and "retry-after" in answer.headers
            if not is_refused or not obeys_limits:
                return answer
            if not tries_left or math.isinf(pause_s):
                raise BlockedError(f"{answer.sent.line} answered {answer.status} {answer.code}".rstrip())
            self._pace.wait_until(pause_s)
        raise AssertionError("the last try returns")

    async def raw(
        self, path: str, request: bytes, *, token: str | None = None, streams: bool = False
    ) -> tuple[str, bytes]:
        """Calls a method by its path; returns the name of the gRPC code and the (first) answer."""
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        async with self._pace.turn():
            try:
                if streams:
                    call: Any = self._channel.stream_stream(path, None, None)
                    async for found in call(iter([request]), metadata=metadata, timeout=self._timeout_s):
                        return OK, found
                    return OK, b""
                unary: Any = self._channel.unary_unary(path, None, None)
                return OK, await unary(request, metadata=metadata, timeout=self._timeout_s)
            except grpc.aio.AioRpcError as error:
                return error.code().name, b""

    async def _once(
        self, operation: str, fields: Mapping[str, Any], pairs: dict[str, str], data: bytes | None, media_type: str
    ) -> Answer:
        method = _method(operation)
        path = f"/{method.containing_service.full_name}/{method.name}"
        sent = Sent(f"gRPC {path[1:]}", pairs, json.dumps(fields)[:_SHOWN_BYTES])
        messages = list(_messages(method, fields, data, media_type))
        async with self._pace.turn():
            call = self._call(method, path, messages, tuple(pairs.items()))
            try:
                got = [each async for each in call] if method.server_streaming else [await call]
                status, message, details = OK, "", []
            except grpc.aio.AioRpcError as error:
                got, status, message = [], error.code().name, error.details() or ""
                details = _details(error)
            both = [*(await call.initial_metadata() or ()), *(await call.trailing_metadata() or ())]
        if status in _NO_ANSWER and not both:
            raise BlockedError(f"{sent.line} got no answer: {status} {message}")
        headers = {name: value for name, value in both if isinstance(value, str)}
        if method.output_type.full_name == "google.api.HttpBody":
            return Answer(
                sent, status, headers, b"".join(each.data for each in got), None, details, message, self._by_edge
            )
        bodies = [_as_json(each) for each in got]
        body = bodies if method.server_streaming else next(iter(bodies), None)
        return Answer(sent, status, headers, b"", body, details, message, self._by_edge)

    def _call(self, method: MethodDescriptor, path: str, messages: list[Message], pairs: Any) -> Any:
        makes: Any = {
            (False, False): self._channel.unary_unary,
            (True, False): self._channel.stream_unary,
            (False, True): self._channel.unary_stream,
        }[method.client_streaming, method.server_streaming]
        serialize = GetMessageClass(method.input_type).SerializeToString
        call = makes(path, serialize, GetMessageClass(method.output_type).FromString)
        request = _each(messages) if method.client_streaming else messages[0]
        return call(request, metadata=pairs, timeout=self._timeout_s)


async def _each(messages: list[Message]) -> AsyncIterator[Message]:
    for message in messages:
        yield message


def _is_encrypted(target: str) -> bool:
    scheme, _, rest = target.rpartition("://")
    host = rest.rpartition(":")[0].strip("[]")
    return scheme == "grpcs" if scheme else not (host in ("localhost", "::1") or host.startswith("127."))


def _method(operation: str) -> MethodDescriptor:
    service = POOL.FindServiceByName(f"{_PACKAGE}.{ROUTES[operation].service}")
    return service.methods_by_name[operation]


def _messages(
    method: MethodDescriptor, fields: Mapping[str, Any], data: bytes | None, media_type: str
) -> Iterable[Message]:
    kind = GetMessageClass(method.input_type)
    if data is None:
        yield json_format.ParseDict(dict(fields), kind(), descriptor_pool=POOL)
        return
    for start in range(0, max(len(data), 1), _CHUNK_BYTES):
        message: Any = kind() if start else json_format.ParseDict(dict(fields), kind(), descriptor_pool=POOL)
        message.body.content_type = "" if start else media_type
        message.body.data = data[start : start + _CHUNK_BYTES]
        yield message


def _as_json(message: Message) -> Any:
    return json_format.MessageToDict(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=POOL,
    )


def _details(error: Any) -> list[dict[str, Any]]:
    packed = [value for name, value in error.trailing_metadata() or () if name == _DETAILS]
    status: Any = GetMessageClass(POOL.FindMessageTypeByName("google.rpc.Status"))()
    try:
        status.ParseFromString(b"".join(packed))
        return [_as_json(detail) for detail in status.details]
    except (DecodeError, json_format.Error, TypeError):
        return []
