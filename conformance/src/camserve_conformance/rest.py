"""Calls over REST."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from camserve_conformance.answer import Answer, Sent
from camserve_conformance.options import Options
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.pace import Pace, pause_of

NDJSON, SSE = "application/x-ndjson", "text/event-stream"
_TRIES = 5
_SHOWN_BYTES = 2000


class Rest:
    """One deployment's edge."""

    def __init__(self, options: Options, pace: Pace) -> None:
        self._pace = pace
        self._token = options.token
        self._timeout_s = options.check_timeout_s
        verify = ssl.create_default_context(cafile=str(options.ca) if options.ca else None)
        if options.insecure:
            verify.check_hostname = False
            verify.verify_mode = ssl.CERT_NONE
        self._verify = verify
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=2 * options.concurrency)
        self._client = httpx.AsyncClient(
            base_url=options.url, verify=verify, timeout=options.check_timeout_s, limits=limits
        )

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    async def request(
        self,
        verb: str,
        path: str,
        *,
        token: str | None = "",
        headers: Mapping[str, str] | None = None,
        obeys_limits: bool = True,
        **content: Any,
    ) -> Answer:
        """Sends a request and reads the whole answer; a refusal for the rate is waited for and tried again.

        `token` is the run's own by default, none when None. `content` is what httpx takes: `json`, `content`, `data`,
        `files`, `params`, `auth`. Raises BlockedError when there is no answer at all, and when the refusal for the rate
        stays.
        """
        token = self._token if token == "" else token
        sent_headers = ({"authorization": f"Bearer {token}"} if token else {}) | dict(headers or {})
        for tries_left in reversed(range(_TRIES)):
            # A stream is read once only, so it is sent once only.
            once = isinstance(content.get("content"), AsyncIterator)
            answer = await self._once(verb, path, sent_headers, content)
            pause_s = pause_of(answer.headers.get("retry-after", ""))
            if answer.status != 429 or not obeys_limits:
                return answer
            if not tries_left or once or math.isinf(pause_s):
                # No fault of the deployment: somebody, from this address or as this tenant, has asked too much.
                raise BlockedError(f"{answer.sent.line} answered 429 {answer.code}".rstrip())
            self._pace.wait_until(pause_s)
        raise AssertionError("the last try returns")

    async def announce(self, verb: str, path: str, body_bytes: int, media_type: str) -> Answer:
        """Announces a body of that many bytes and sends none of it: what is refused for its length alone is answered.

        httpx would send the body first. Raises BlockedError when there is no answer at all.
        """
        url = self._client.base_url
        port = url.port or (443 if url.scheme == "https" else 80)
        headers = {
            "host": url.netloc.decode(),
            "authorization": f"Bearer {self._token}",
            "content-type": media_type,
            "content-length": str(body_bytes),
        }
        target = url.path.rstrip("/") + path
        lines = [f"{verb} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        async with self._pace.turn():
            try:
                async with asyncio.timeout(self._timeout_s):
                    verify = self._verify if url.scheme == "https" else None
                    reader, writer = await asyncio.open_connection(url.host, port, ssl=verify)
                    try:
                        writer.write("\r\n".join(lines).encode())
                        status, got, content = await _received(reader)
                    finally:
                        writer.close()
                        with suppress(OSError):
                            await writer.wait_closed()
            except (OSError, asyncio.IncompleteReadError, ValueError) as error:
                raise BlockedError(f"{verb} {path} got no answer: {type(error).__name__} {error}") from error
        response = httpx.Response(status, headers=got, content=content)
        return Answer(Sent(f"{verb} {path}", headers), status, got, content, _value(response))

    async def _once(self, verb: str, path: str, headers: dict[str, str], content: dict[str, Any]) -> Answer:
        request = self._client.build_request(verb, path, headers=headers, **content)
        async with self._pace.turn():
            try:
                response = await self._client.send(request, auth=None)
            except httpx.LocalProtocolError:
                # What it says quotes the request, the token in it too; nor may a traceback say it.
                raise BlockedError(f"{verb} {request.url.path} could not be sent: it is no HTTP request") from None
            except httpx.HTTPError as error:
                raise BlockedError(
                    f"{verb} {request.url.path} got no answer: {type(error).__name__} {error}"
                ) from error
        joined = {name.lower(): value for name, value in response.headers.items()}
        return Answer(_shown(request), response.status_code, joined, response.content, _value(response))


async def _received(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split(" ")[1]), headers, content


def _shown(request: httpx.Request) -> Sent:
    try:
        data = request.content
    except httpx.RequestNotRead:
        data = b"(a stream)"
    text = data[:_SHOWN_BYTES].decode(errors="replace") if _is_text(data) else f"({len(data)} bytes)"
    return Sent(f"{request.method} {request.url}", dict(request.headers), text)


def _is_text(data: bytes) -> bool:
    return b"\0" not in data[:_SHOWN_BYTES]


def _value(response: httpx.Response) -> Any:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == NDJSON:
            return [json.loads(line) for line in response.text.splitlines() if line]
        if kind == SSE:
            return [json.loads(data) for data in sse_data(response.text)]
        if kind.endswith("json"):
            return response.json()
    except ValueError:
        pass
    return None


def sse_data(text: str) -> list[str]:
    """Returns the data of each event of a stream of server-sent events; comments have none."""
    events = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines:
            events.append("\n".join(lines))
    return events
