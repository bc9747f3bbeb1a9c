"""The guarded client: everything that the service calls on behalf of a caller goes through it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from yarl import URL

from camserve_server.base.breaker import Breakers
from camserve_server.base.errors import ApiError, Reason
from camserve_server.outbound.addresses import parse_address
from camserve_server.outbound.connector import CappedConnector
from camserve_server.outbound.resolver import Caller, Resolver, caller
from camserve_server.outbound.targets import Allowed, NotAllowedError, parse_target

_MOST_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_S = 5.0
_CHUNK_BYTES = 256 * 1024
# Nothing of the caller goes out; a body that would have to be unpacked is refused.
_AGENT = "camserve"
_HEADERS = {"accept": "image/*", "accept-encoding": "identity", "user-agent": _AGENT}

Sink = Callable[[bytes], Awaitable[None]]


class FetchError(Exception):
    """Nothing came, or not what was announced. Why is not said: it would tell of the network behind the service."""


class UntriedError(FetchError):
    """The time went by before it was even the turn to look up the name: nothing became known of the origin."""


class _OriginFailedError(FetchError):
    """The origin says that it is broken."""


class TooLargeError(Exception):
    """More bytes than were asked for; `size_bytes` counts those announced or those that had come."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """What a POST was answered with; `retry_after` is the header as it came."""

    status: int
    retry_after: str | None


class GuardedClient:
    """Calls public addresses only, and those of a list.

    The address is judged when the socket for it is made, so nothing between a name and its address can change it.
    No redirect is followed unjudged, no proxy or cookie taken from anywhere, no connection used twice.
    """

    def __init__(self, allowed: Allowed, origins: Breakers | None = None) -> None:
        """With `origins`, an origin that keeps failing a tenant is left alone by it for a while."""
        self._allowed = allowed
        self._origins = origins
        self._resolver = Resolver()
        self._session: aiohttp.ClientSession | None = None

    def check(self, url: str) -> None:
        """Raises NotAllowedError for a URL that is never called."""
        parse_target(url, self._allowed)

    async def fetch(self, url: str, sink: Sink, *, limit_bytes: int, timeout_s: float, tenant: str = "") -> None:
        """Gives the body at `url` to the sink, in chunks; follows up to 3 redirects.

        `tenant` is on whose behalf. Raises NotAllowedError for the URL itself, TooLargeError past `limit_bytes`,
        FetchError for everything else.
        """
        target = parse_target(url, self._allowed)
        who = Caller(tenant)
        caller.set(who)
        try:
            async with asyncio.timeout(timeout_s):
                for _ in range(_MOST_REDIRECTS + 1):
                    # A tenant's own: what another one was answered is not told, and does it no harm.
                    with self._guard(who, target):
                        next_target = await self._get(target, sink, limit_bytes)
                    if next_target is None:
                        return
                    target = next_target
        except (TimeoutError, NotAllowedError, aiohttp.ClientError, OSError, ValueError) as error:
            raise (UntriedError if who.untried else FetchError) from error
        except ApiError as error:
            if error.reason is Reason.CIRCUIT_OPEN:
                raise FetchError from error
            raise
        raise FetchError

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float, tenant: str = ""
    ) -> Reply:
        """Sends a body and returns the answer, whatever its status; a redirect is an answer, and no body is read.

        `tenant` is on whose behalf. Raises NotAllowedError for the URL itself, FetchError when there is no answer in
        time, UntriedError when the time went by without an attempt.
        """
        target = parse_target(url, self._allowed)
        who = Caller(tenant)
        caller.set(who)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._opened().post(
                    target, data=body, headers={**headers, "user-agent": _AGENT}, allow_redirects=False
                ) as response,
            ):
                return Reply(response.status, response.headers.get("retry-after"))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise (UntriedError if who.untried else FetchError) from error

    async def close(self) -> None:
        """Ends every call."""
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    @contextmanager
    def _guard(self, who: Caller, target: URL) -> Iterator[None]:
        if self._origins is None:
            yield
            return
        with self._origins[who.owner, target.origin()].guard(_blame) as turn:
            try:
                yield
            finally:
                if who.untried:
                    turn.left()

    async def _get(self, target: URL, sink: Sink, limit_bytes: int) -> URL | None:
        """Fetches once; returns where a redirect leads."""
        async with self._opened().get(target, allow_redirects=False, headers=_HEADERS) as response:
            if response.status in _REDIRECTS:
                return parse_target(str(target.join(URL(response.headers.get("location", "")))), self._allowed)
            if response.status >= 500:
                raise _OriginFailedError
            if response.status != 200 or response.headers.get("content-encoding", "identity").lower() != "identity":
                raise FetchError
            announced = response.content_length
            if announced is not None and announced > limit_bytes:
                raise TooLargeError(announced)
            size_bytes = 0
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                size_bytes += len(chunk)
                if size_bytes > limit_bytes:
                    raise TooLargeError(size_bytes)
                await sink(chunk)
            if announced is not None and announced != size_bytes:
                raise FetchError
            return None

    def _opened(self) -> aiohttp.ClientSession:
        """Returns the session, which belongs to the event loop."""
        if self._session is None:
            connector = CappedConnector(
                socket_factory=self._socket,
                resolver=self._resolver,
                use_dns_cache=False,
                force_close=True,
                limit=0,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
                trust_env=False,
                auto_decompress=False,
            )
        return self._session

    def _socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, place = address_info
        address = parse_address(str(place[0]))
        if address is None or not self._allowed.permits(address, int(place[1])):
            raise OSError("an address that is never called")
        return socket.socket(family, kind, protocol)


def _blame(error: Exception) -> bool | None:
    """Blames an origin that cannot be reached or breaks off, not one whose answer is not what was asked for."""
    if isinstance(error, ApiError):
        return None
    return isinstance(error, (_OriginFailedError, TimeoutError, aiohttp.ClientError, OSError))
