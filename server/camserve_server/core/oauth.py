"""The token endpoint: client credentials in, a token out (RFC 6749 section 4.4)."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, unquote_plus

from camserve_server.core.tokens import TokenIssuer

TOKEN_TTL_S = 3600


class OAuthError(Exception):
    """A refusal in the words of RFC 6749 section 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code)
        self.code = code
        self.description = description

    @property
    def status(self) -> int:
        """The HTTP status: 401 for a client that could not be authenticated, else 400."""
        return 401 if self.code == "invalid_client" else 400


@dataclass(frozen=True, slots=True)
class Grant:
    """What a client asks for."""

    grant_type: str
    client_id: str
    client_secret: str
    scope: str


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token and what it allows."""

    access_token: str
    expires_in_s: int
    scope: str


class Client(Protocol):
    """A registered client."""

    @property
    def client_id(self) -> str:
        """Names the client."""

    @property
    def tenant(self) -> str:
        """Names the tenant on whose behalf it acts."""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Lists what it may do."""


class Clients(Protocol):
    """Where registered clients are kept."""

    async def verify(self, client_id: str, secret: str) -> Client | None:
        """Returns the client when the secret is right; raises ApiError(STORE_UNAVAILABLE)."""


def parse_grant(form: bytes, authorization: str | None) -> Grant:
    """Returns the grant of a form body and HTTP Basic credentials; raises OAuthError when they are not one."""
    try:
        fields = parse_qs(form.decode("ascii"), keep_blank_values=True, strict_parsing=bool(form), max_num_fields=16)
    except (UnicodeDecodeError, ValueError):
        raise OAuthError("invalid_request", "The body is no form.") from None
    if any(len(values) > 1 for values in fields.values()):
        raise OAuthError("invalid_request", "A field is given twice.")
    values = {name: value[0] for name, value in fields.items()}
    return with_basic(
        Grant(
            grant_type=values.get("grant_type", ""),
            client_id=values.get("client_id", ""),
            client_secret=values.get("client_secret", ""),
            scope=values.get("scope", ""),
        ),
        authorization,
    )


def with_basic(grant: Grant, authorization: str | None) -> Grant:
    """Returns `grant` with the credentials of an HTTP Basic header; raises OAuthError when there are two sets."""
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return grant
    if grant.client_secret:
        raise OAuthError("invalid_request", "Credentials are given twice.")
    try:
        client_id, separator, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:
        raise OAuthError("invalid_client", "The Basic credentials cannot be read.") from None
    if not separator:
        raise OAuthError("invalid_client", "The Basic credentials cannot be read.")
    return Grant(grant.grant_type, unquote_plus(client_id), unquote_plus(secret), grant.scope)


class TokenEndpoint:
    """Exchanges client credentials for tokens."""

    def __init__(self, clients: Clients, issuer: TokenIssuer) -> None:
        self._clients = clients
        self._issuer = issuer

    async def exchange(self, grant: Grant) -> IssuedToken:
        """Returns a token; raises OAuthError, or ApiError(STORE_UNAVAILABLE)."""
        if not grant.grant_type:
            raise OAuthError("invalid_request", "grant_type is missing.")
        if grant.grant_type != "client_credentials":
            raise OAuthError("unsupported_grant_type", "Only client_credentials is supported.")
        if not grant.client_id or not grant.client_secret:
            raise OAuthError("invalid_client", "Client credentials are missing.")
        client = await self._clients.verify(grant.client_id, grant.client_secret)
        if client is None:
            raise OAuthError("invalid_client", "The client is unknown or its secret is wrong.")
        wanted = tuple(grant.scope.split()) or client.scopes
        if not set(wanted) <= set(client.scopes):
            raise OAuthError("invalid_scope", "The client may not have a scope that was asked for.")
        token = self._issuer.issue(tenant=client.tenant, subject=client.client_id, scopes=wanted, ttl_s=TOKEN_TTL_S)
        return IssuedToken(token, TOKEN_TTL_S, " ".join(wanted))
