"""The service over REST."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from camserve_client import rest_forms
from camserve_client.errors import ANSWER_INVALID, CONNECTION_FAILED, CamserveError, timed_out
from camserve_client.method import A, Method, Q
from camserve_client.refusals import of_http
from camserve_client.rest_forms import Form
from camserve_client.transport import IDLE_S, Answer, Piece, Sending
from camserve_client.version import USER_AGENT

_CONNECT_S = 10.0
_NDJSON = {"accept": "application/x-ndjson"}


class RestTransport:
    """A pool of connections."""

    # A raw body is smaller than base64 in JSON, whatever the image.
    inline_bytes = 0

    def __init__(self, url: str, *, ca_file: Path | None = None) -> None:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        self._http = httpx.AsyncClient(
            base_url=url,
            verify=verify,
            headers={"user-agent": USER_AGENT},
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64),
        )

    async def unary(self, method: Method[Q, A], request: Q, sending: Sending) -> Answer[A]:
        """Sends a message and returns the one that answers."""
        form = rest_forms.outgoing(method, request)
        return await self._whole(method, form, form.content, sending)

    async def upload(self, method: Method[Q, A], request: Q, piece: Piece, sending: Sending) -> Answer[A]:
        """Streams bytes, with the options of `request`, and returns the message that answers."""
        return await self._whole(method, rest_forms.streamed(method, request, piece), piece.chunks, sending)

    async def stream(self, method: Method[Q, A], request: Q, sending: Sending) -> AsyncGenerator[A]:
        """Sends a message and yields those that answer."""
        form = rest_forms.outgoing(method, request)
        raw = method.response.DESCRIPTOR.full_name == rest_forms.RAW
        headers = sending.headers if raw else sending.headers | _NDJSON
        loop = asyncio.get_running_loop()
        ends = None if sending.timeout_s is None else loop.time() + sending.timeout_s
        with _failures(sending):
            # Only what is waited for here counts: between two messages the time is the caller's.
            async with asyncio.timeout_at(ends):
                response = await self._opened(method, form, form.content, Sending(headers), idle_s=IDLE_S)
        try:
            parts: AsyncIterator[Any] = response.aiter_bytes() if raw else response.aiter_lines()
            while True:
                with _failures(sending):
                    async with asyncio.timeout_at(ends):
                        part = await anext(parts, None)
                if part is None:
                    return
                if part:
                    yield method.response(data=part) if raw else rest_forms.parsed(method.response(), part)
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Ends every connection."""
        await self._http.aclose()

    async def _whole(
        self, method: Method[Q, A], form: Form, content: bytes | AsyncIterator[bytes] | None, sending: Sending
    ) -> Answer[A]:
        with _failures(sending):
            async with asyncio.timeout(sending.timeout_s):
                response = await self._opened(method, form, content, sending)
                try:
                    body = await response.aread()
                finally:
                    await response.aclose()
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
    ) -> httpx.Response:
        """Returns the answer before its body has come; raises CamserveError for one that is not 2xx."""
        request = self._http.build_request(
            method.verb,
            form.route,
            params=form.query or None,
            headers={**form.headers, **sending.headers},
            content=content,
            timeout=httpx.Timeout(None, connect=_CONNECT_S, read=idle_s),
        )
        response = await self._http.send(request, stream=True)
        if response.is_success:
            return response
        try:
            raise of_http(response.status_code, response.headers, await response.aread())
        finally:
            await response.aclose()


@contextmanager
def _failures(sending: Sending) -> Iterator[None]:
    """Makes what goes wrong on the way a CamserveError."""
    try:
        yield
    except TimeoutError:
        raise timed_out(sending.timeout_s) from None
    except httpx.TransportError as error:
        raise CamserveError(CONNECTION_FAILED, f"The connection failed: {type(error).__name__}.") from error
    except httpx.HTTPError as error:
        raise CamserveError(ANSWER_INVALID, "The answer cannot be read.") from error
