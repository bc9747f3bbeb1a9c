"""Tokens: given, made by the caller, or fetched with client credentials."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from camserve_client.errors import CamserveError, timed_out
from camserve_client.gen import auth_pb2, methods
from camserve_client.lifetime import Lifetime
from camserve_client.retry import Retries
from camserve_client.transport import Sending, Transport

# A token is renewed when a tenth of its life is left, and no later than this before its end.
_RENEW_SHARE, _RENEW_S = 0.1, 30.0
_TOKEN = re.compile(r"[\x21-\x7e]*")
TokenSource = str | Callable[[], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """An id and a secret, as `camserve client create` prints them; no scopes asks for all that the client has."""

    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...] = ()


class Tokens(Protocol):
    """Gives the token of a call."""

    async def token(self, timeout_s: float | None) -> str | None:
        """Returns a token that is good now, or None where there is none to send."""

    def refused(self, token: str) -> bool:
        """Returns whether another token may do, now that the service refused this one."""


class GivenTokens:
    """A token that the caller has, or a function that gives one at every call."""

    def __init__(self, source: TokenSource | None, lifetime: Lifetime) -> None:
        self._source = source
        self._lifetime = lifetime

    async def token(self, timeout_s: float | None) -> str | None:
        """Returns what the caller gave, or gives now."""
        if self._source is None:
            return None
        async with self._lifetime.waiting():
            given = self._source if isinstance(self._source, str) else self._source()
            if inspect.isawaitable(given):
                given = await self._made(given, timeout_s)
        # Files that tokens are read from end in a newline, which no header takes.
        token = given.strip()
        if not _TOKEN.fullmatch(token):
            raise CamserveError("auth.invalid_token", "A token is visible ASCII characters.", status=401)
        return token

    @staticmethod
    async def _made(given: Awaitable[str], timeout_s: float | None) -> str:
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                return await given
        except TimeoutError:
            # The function's own are its own matter.
            if deadline.expired():
                raise timed_out(timeout_s) from None
            raise

    def refused(self, token: str) -> bool:
        """Returns false: a function that gives tokens decides by itself when to renew them."""
        return False


class FetchedTokens:
    """Tokens for client credentials: one fetch for all calls that wait, and a new one before the old one ends."""

    def __init__(self, transport: Transport, credentials: ClientCredentials, retries: Retries) -> None:
        self._transport = transport
        self._credentials = credentials
        self._retries = retries
        self._token = ""
        self._renew_at = 0.0
        self._fetching = asyncio.Lock()

    async def token(self, timeout_s: float | None) -> str:
        """Returns a token that is good for a while; raises CamserveError when the service gives none."""
        if not self._good:
            try:
                # The fetch that is waited for may be another call's, which has more time.
                async with asyncio.timeout(timeout_s), self._fetching:
                    if not self._good:
                        await self._fetch(timeout_s)
            except TimeoutError:
                raise timed_out(timeout_s) from None
        return self._token

    def refused(self, token: str) -> bool:
        """Forgets the token, so that the next call fetches another."""
        if token == self._token:
            self._token = ""
        return True

    @property
    def _good(self) -> bool:
        return bool(self._token) and self._retries.clock.now() < self._renew_at

    async def _fetch(self, timeout_s: float | None) -> None:
        request = auth_pb2.IssueTokenRequest(
            grant_type="client_credentials",
            client_id=self._credentials.client_id,
            client_secret=self._credentials.client_secret,
            scope=" ".join(self._credentials.scopes),
        )
        asked_at = self._retries.clock.now()
        issued = await self._retries.run(
            lambda tries: self._transport.unary(methods.ISSUE_TOKEN, request, Sending(timeout_s=tries.left_s)),
            timeout_s=timeout_s,
            # A second token harms nobody.
            repeatable=True,
        )
        life_s = float(issued.message.expires_in)
        self._token = issued.message.access_token
        self._renew_at = asked_at + life_s - max(_RENEW_SHARE * life_s, min(_RENEW_S, life_s / 2))
