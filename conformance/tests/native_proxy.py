"""A faulty proxy in front of the real gRPC port: it alters one thing of what passes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from camserve_conformance.native import POOL

DETAILS = "grpc-status-details-bin"


@dataclass
class NativeExchange:
    """A call and its answer, which alterations change in place; `code` is None where the call succeeded."""

    path: str
    asked_metadata: dict[str, Any]
    asked: list[bytes]
    initial: dict[str, Any] = field(default_factory=dict)
    trailing: dict[str, Any] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    code: grpc.StatusCode | None = None
    message: str = ""

    @property
    def operation(self) -> str:
        return self.path.rpartition("/")[2]

    def edit(self, name: str, change: Callable[[Any], None]) -> None:
        """Changes the answer's messages, which are of the type `camserve.v1.<name>`."""
        self.messages = [_edited(name, each, change) for each in self.messages]

    def edit_detail(self, change: Callable[[Any], None]) -> None:
        """Changes google.rpc.Status of a refusal."""
        if DETAILS in self.trailing:
            self.trailing[DETAILS] = _edited("google.rpc.Status", self.trailing[DETAILS], change)

    def edit_error(self, change: Callable[[Any], None]) -> None:
        """Changes the error object of a refusal."""

        def within(status: Any) -> None:
            status.details[0].value = _edited("ErrorObject", status.details[0].value, change)

        self.edit_detail(within)


def _edited(name: str, data: bytes, change: Callable[[Any], None]) -> bytes:
    full = name if "." in name else f"camserve.v1.{name}"
    message: Message = GetMessageClass(POOL.FindMessageTypeByName(full)).FromString(data)
    change(message)
    return message.SerializeToString()


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.aio.Channel, alter: Callable[[NativeExchange], None]) -> None:
        self._channel = channel
        self._alter = alter

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def serve(
            requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[bytes]:
            exchange = NativeExchange(
                details.method,
                {name: value for name, value in details.invocation_metadata if not name.startswith("user-agent")},
                [each async for each in requests],
            )
            await self._pass_on(exchange)
            self._alter(exchange)
            await context.send_initial_metadata(tuple(exchange.initial.items()))
            for each in exchange.messages:
                yield each
            context.set_trailing_metadata(tuple(exchange.trailing.items()))
            if exchange.code:
                context.set_code(exchange.code)
                context.set_details(exchange.message)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _pass_on(self, exchange: NativeExchange) -> None:
        makes: Any = self._channel.stream_stream(exchange.path, None, None)
        call = makes(iter(exchange.asked), metadata=tuple(exchange.asked_metadata.items()))
        try:
            exchange.messages = [each async for each in call]
        except grpc.aio.AioRpcError as error:
            exchange.code, exchange.message = error.code(), error.details() or ""
        exchange.initial = dict(await call.initial_metadata() or ())
        exchange.trailing = dict(await call.trailing_metadata() or ())


@asynccontextmanager
async def faulty_native_proxy(target: str, alter: Callable[[NativeExchange], None]) -> AsyncIterator[str]:
    """A proxy that listens at a port of this machine; yields its address."""
    async with grpc.aio.insecure_channel(target) as channel:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((_Proxy(channel, alter),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
