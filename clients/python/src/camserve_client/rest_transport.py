"""The service over REST."""

from __future__ import annotations

import asyncio
import io
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import aiohttp
from yarl import URL

from camserve_client import rest_forms
from camserve_client.address import proxy_of
from camserve_client.errors import ANSWER_INVALID, CONNECTION_FAILED, CamserveError, closed, timed_out
from camserve_client.method import A, Method, Q
from camserve_client.refusals import of_http
from camserve_client.rest_forms import Form
from camserve_client.transport import IDLE_S, Answer, Piece, Sending, watched
from camserve_client.version import USER_AGENT

_CONNECT_S = 10.0
_CONNECTIONS = 256
_TURNS = 100
_NDJSON = {"accept": "application/x-ndjson"}


class RestTransport:
    """A pool of connections.

    An answer may come before its request was sent whole, as a refusal of a large image does: it is heard at once,
    where a client that sends first and listens then would find the connection closed.
    """

    # A raw body is smaller than base64 in JSON, whatever the image.
    inline_bytes = 0

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        context: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        self._url = url
        self._sockets: WeakSet[socket.socket] = WeakSet()
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=context, socket_factory=self._socket),
            headers={"user-agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
            # Of the environment only the proxy: a netrc entry would be a second authorization.
            proxy=proxy_of(url),
        )
        # Attempts are counted in one place, which must know of each; aiohttp says this of no other way.
        self._http._retry_connection = False
        self._streams: WeakSet[aiohttp.ClientResponse] = WeakSet()
        self._closed = False

    async def unary(self, method: Method[Q, A], request: Q, sending: Sending) -> Answer[A]:
        """Sends a message and returns the one that answers."""
        form = rest_forms.outgoing(method, request)
        return await self._whole(method, form, form.content, sending)

    async def upload(self, method: Method[Q, A], request: Q, piece: Piece, sending: Sending) -> Answer[A]:
        """Streams bytes, with the options of `request`, and returns the message that answers."""
        failures: list[Exception] = []
        form = rest_forms.streamed(method, request, piece)
        try:
            return await self._whole(method, form, watched(piece.chunks, failures), sending)
        except CamserveError:
            # What cannot be read to the end ends the connection.
            for failure in failures:
                raise failure from None
            raise

    async def stream(self, method: Method[Q, A], request: Q, sending: Sending) -> AsyncGenerator[A]:
        """Sends a message and yields those that answer."""
        form = rest_forms.outgoing(method, request)
        raw = method.response.DESCRIPTOR.full_name == rest_forms.RAW
        headers = sending.headers if raw else sending.headers | _NDJSON
        loop = asyncio.get_running_loop()
        ends = None if sending.timeout_s is None else loop.time() + sending.timeout_s
        with self._failures(sending):
            # Only what is waited for here counts: between two messages the time is the caller's.
            async with asyncio.timeout_at(ends):
                response = await self._opened(method, form, form.content, Sending(headers), idle_s=IDLE_S)
        self._streams.add(response)
        try:
            parts = response.content.iter_any() if raw else _lines(response.content)
            while True:
                with self._failures(sending):
                    async with asyncio.timeout_at(ends):
                        part = await anext(parts, None)
                if part is None:
                    return
                if part:
                    yield method.response(data=part) if raw else rest_forms.parsed(method.response(), part)
        finally:
            response.close()

    async def close(self) -> None:
        """Ends every connection, and with it every call."""
        self._closed = True
        for response in list(self._streams):
            # Whoever waits for more of it would wait for ever.
            response.content.set_exception(aiohttp.ClientConnectionError("closed"))
        await self._http.close()
        # A connection with something left to send would wait until it is read.
        for one in self._open():
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        # The event loop hears of that when it turns next, and closes them in the turns after that.
        for _ in range(_TURNS):
            if not self._open():
                return
            await asyncio.sleep(0)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made

    def _open(self) -> list[socket.socket]:
        return [one for one in self._sockets if one.fileno() != -1]

    async def _whole(
        self, method: Method[Q, A], form: Form, content: bytes | AsyncIterator[bytes] | None, sending: Sending
    ) -> Answer[A]:
        with self._failures(sending):
            async with asyncio.timeout(sending.timeout_s):
                response = await self._opened(method, form, content, sending)
                async with response:
                    body = await response.read()
        message = method.response()
        if body:
            rest_forms.parsed(message, body)
        else:
            rest_forms.from_headers(message, form.storage_id, response.headers)
        return Answer(message, response.headers)

    async def _opened(
        self,
        method: Method[Any, Any],
        form: Form,
        content: bytes | AsyncIterator[bytes] | None,
        sending: Sending,
        *,
        idle_s: float | None = None,
    ) -> aiohttp.ClientResponse:
        """Returns the answer before its body has come; raises CamserveError for one that is not 2xx."""
        response = await self._http.request(
            method.verb,
            # As it is: what is escaped in an id stays escaped.
            URL(self._url + form.route, encoded=True).update_query(form.query),
            headers={**form.headers, **sending.headers},
            data=io.BytesIO(content) if isinstance(content, bytes) else content,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=idle_s),
        )
        if 200 <= response.status < 300:
            return response
        try:
            # Not `read`, which waits until the request was sent.
            raise rest_forms.told(method, of_http(response.status, response.headers, await response.content.read()))
        finally:
            response.close()

    @contextmanager
    def _failures(self, sending: Sending) -> Iterator[None]:
        """Makes what goes wrong on the way a CamserveError."""
        try:
            yield
        except CamserveError:
            raise
        except Exception as error:
            # Calls hear of it in many ways, few of which say so.
            if self._closed:
                raise closed() from error
            # Before the other one: a connection that says nothing is both.
            if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
                message = f"The connection to {self._url} failed: {str(error) or type(error).__name__}."
                raise CamserveError(CONNECTION_FAILED, message) from error
            if isinstance(error, TimeoutError):
                raise timed_out(sending.timeout_s) from None
            if isinstance(error, aiohttp.ClientError):
                raise CamserveError(ANSWER_INVALID, "The answer cannot be read.") from error
            raise


async def _lines(content: aiohttp.StreamReader) -> AsyncGenerator[bytes]:
    """Yields lines of any length."""
    parts: list[bytes] = []
    async for data in content.iter_any():
        *whole, rest = data.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line])
            parts = []
        parts.append(rest)
    yield b"".join(parts)
