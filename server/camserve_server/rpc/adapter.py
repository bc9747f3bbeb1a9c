"""Binds a servicer's methods to gRPC: every call of any shape goes through one chain."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, Self

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from camserve_server.rpc.call import Call, Interceptor
from camserve_server.rpc.policy import policy_of

Context = grpc.aio.ServicerContext[Any, Any]


def bind(
    service: ServiceDescriptor, servicer: object, chain: Sequence[Interceptor]
) -> grpc.GenericRpcHandler[Any, Any]:
    """Returns the handler of a service whose method `GetModel` is `servicer.get_model(call, request)`.

    A method that streams to the caller is an async generator; one that is streamed to receives an async
    iterator. Raises PolicyError for a method without a policy, AttributeError for one that is not written.
    """
    handlers = {
        method.name: _handler(method, getattr(servicer, _snake(method.name)), chain) for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _handler(
    method: MethodDescriptor, serve: Callable[..., Any], chain: Sequence[Interceptor]
) -> grpc.RpcMethodHandler[Any, Any]:
    policy = policy_of(method)
    answer = _stream if method.server_streaming else _single

    async def handle(_: object, context: Context) -> Any:
        call = Call.begin(method, policy, _Messages(context), context, serve)
        try:
            await _run(chain, call, partial(answer, call, serve))
        except grpc.aio.AbortError as aborted:
            # gRPC keeps it, and raises it once more when this returns. With its frames it would keep the call with all
            # that has come of the request, until the garbage collector finds them.
            aborted.__traceback__ = None
            return None
        finally:
            call.end()
        return call.response

    # Every request is a stream here, the same on the wire: gRPC receives a single message whole before it calls
    # anybody, 100 MB of a stranger too. And it stays bytes: parsed by the chain, a malformed one is an error like any.
    make = grpc.stream_stream_rpc_method_handler if method.server_streaming else grpc.stream_unary_rpc_method_handler
    return make(
        handle,
        response_serializer=message_factory.GetMessageClass(method.output_type).SerializeToString,
    )


class _Messages:
    """The messages of a request, none of which it keeps, unlike the iterator that gRPC hands to a handler."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        message = await self._context.read()
        if not isinstance(message, bytes):
            raise StopAsyncIteration
        return message


async def _run(chain: Sequence[Interceptor], call: Call, serve: Callable[[], Awaitable[None]]) -> None:
    if chain:
        await chain[0](call, partial(_run, chain[1:], call, serve))
    else:
        await serve()


async def _single(call: Call, serve: Callable[..., Any]) -> None:
    call.response = await serve(call, call.request)


async def _stream(call: Call, serve: Callable[..., Any]) -> None:
    async with aclosing(serve(call, call.request)) as messages:
        first = True
        async for message in messages:
            if first:
                # Late, so that a refusal before the first message is a plain error and not a broken stream.
                await call.send_headers()
                first = False
            await call.context.write(message)


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
