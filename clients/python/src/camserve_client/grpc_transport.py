"""The service over gRPC, at its own port or through the edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from camserve_client.errors import ANSWER_INVALID, CONNECTION_FAILED, CamserveError, closed
from camserve_client.grpc_status import Status
from camserve_client.method import A, Method, Q
from camserve_client.refusals import of_grpc
from camserve_client.transport import IDLE_S, Answer, Piece, Sending, watched
from camserve_client.version import USER_AGENT

_END: Any = grpc.aio.EOF  # type: ignore[attr-defined] # the hints lack it
_MOST_BYTES = 64 << 20
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", _MOST_BYTES),
    ("grpc.max_send_message_length", -1),
    # Attempts are counted in one place, which knows keys and deadlines.
    ("grpc.enable_retries", 0),
    # With the defaults a channel that lost its server refuses calls for up to two minutes without trying.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.primary_user_agent", USER_AGENT),
]


class GrpcTransport:
    """One channel, and so one connection for all calls."""

    inline_bytes = 1 << 20

    def __init__(self, target: str, *, tls: bool, ca_file: Path | None = None) -> None:
        if tls:
            authorities = ca_file.read_bytes() if ca_file else None
            credentials = grpc.ssl_channel_credentials(authorities)
            self._channel = grpc.aio.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        self._callables: dict[str, Any] = {}
        self._closed = False

    async def unary(self, method: Method[Q, A], request: Q, sending: Sending) -> Answer[A]:
        """Sends a message and returns the one that answers."""
        with self._closing():
            call = self._callable(method, "unary_unary")(request, **_options(sending))
            try:
                return Answer(_read(await call), dict(await call.initial_metadata()))
            except grpc.aio.AioRpcError as error:
                raise of_grpc(error) from None

    async def upload(self, method: Method[Q, A], request: Q, piece: Piece, sending: Sending) -> Answer[A]:
        """Streams bytes, with the options of `request`, and returns the message that answers."""
        failures: list[Exception] = []

        async def messages() -> AsyncIterator[Q]:
            message = request
            body: Any = message.body  # type: ignore[attr-defined] # every request of a client stream has one
            body.content_type = piece.media_type
            async for chunk in watched(piece.chunks, failures):
                body.data = chunk
                yield message
                message = method.request()
                body = message.body  # type: ignore[attr-defined]
            if message is request:
                yield message

        with self._closing():
            call = self._callable(method, "stream_unary")(messages(), **_options(sending))
            status = Status(call)
            try:
                return Answer(_read(await call), dict(await call.initial_metadata()))
            except grpc.aio.AioRpcError as error:
                raise await status.of(error) from None
            except asyncio.CancelledError:
                # What cannot be read to the end ends the call as if it were cancelled.
                for failure in failures:
                    raise failure from None
                raise

    async def stream(self, method: Method[Q, A], request: Q, sending: Sending) -> AsyncGenerator[A]:
        """Sends a message and yields those that answer."""
        with self._closing():
            call = self._callable(method, "unary_stream")(request, **_options(sending))
        try:
            while True:
                with self._closing():
                    async with asyncio.timeout(IDLE_S):
                        message = await call.read()
                if message is _END:
                    return
                yield _read(message)
        except grpc.aio.AioRpcError as error:
            raise of_grpc(error) from None
        except TimeoutError:
            raise CamserveError(CONNECTION_FAILED, f"The stream said nothing for {IDLE_S:g} s.") from None
        finally:
            call.cancel()

    async def close(self) -> None:
        """Ends the connection, and with it every call."""
        self._closed = True
        await self._channel.close(grace=None)

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Says so where a call ended because of `close`, and not because its caller was cancelled."""
        try:
            yield
        except grpc.aio.UsageError:
            raise closed() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                raise closed() from None
            raise

    def _callable(self, method: Method[Q, A], shape: str) -> Any:
        known = self._callables.get(method.path)
        if known is None:
            known = self._callables[method.path] = getattr(self._channel, shape)(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return known


def _read(message: A | None) -> A:
    """Returns a message; raises CamserveError(answer.invalid) in the place of one that could not be read."""
    if message is None:
        raise CamserveError(ANSWER_INVALID, "The answer cannot be read.")
    return message


def _options(sending: Sending) -> dict[str, Any]:
    return {"metadata": tuple(sending.headers.items()), "timeout": sending.timeout_s}
