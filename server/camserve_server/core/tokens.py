"""Tokens: issues them and tells whose they are."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason

ALGORITHMS = ("RS256", "ES256", "EdDSA")
# Media types of a token (RFC 8725 section 3.11): of an access token, or none in particular. Not those of its relatives,
# such as `logout+jwt` or `dpop+jwt`, which the same issuer may sign for the same audience.
TYPES = ("jwt", "at+jwt")
# Only ID tokens have these (OpenID Connect Core, section 3.3.2.11): they say who signed in, not who may call.
_OF_ID_TOKENS = frozenset({"at_hash", "c_hash"})
# Headers that change what is signed, or what must be understood. None is understood here.
_REFUSED_HEADERS = frozenset({"crit", "b64"})
MOST_CHARACTERS = 16 * 1024
LEEWAY_S = 10
MAX_LIFETIME_S = 24 * 3600
SCOPES = ("inference.read", "inference.write", "jobs.read", "jobs.write", "webhooks.read", "webhooks.write")
TENANT = re.compile(r"[A-Za-z0-9._:@-]{1,100}")
_MOST_SUBJECT_CHARACTERS = 255  # as of OpenID Connect Core, section 2
# Three parts of base64url and nothing else: no blanks, no second token, no unsigned token, no JWE.
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: from a verified token."""

    tenant: str
    subject: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with the name and algorithm that a token's header carries."""

    kid: str
    algorithm: str
    private_key: Any


class SigningKeys(Protocol):
    """Where the built-in issuer's keys come from."""

    def primary(self) -> SigningKey:
        """Returns the key that signs."""

    def public_jwks(self) -> list[dict[str, str]]:
        """Returns the public halves as JSON Web Keys, the one that signs first."""


class VerificationKeys(Protocol):
    """Where the keys that verify come from."""

    def public_jwks(self) -> list[dict[str, str]]:
        """Returns JSON Web Keys, the same list until they change."""

    async def seek(self) -> None:
        """Looks for a key that is not among them; raises ApiError(STORE_UNAVAILABLE) while there are none at all."""


@dataclass(frozen=True, slots=True)
class _Verified:
    """What a token said, good until it expires or its issuer's keys change."""

    identity: Identity
    expires_at: float
    keys: VerificationKeys
    jwks: list[dict[str, str]]


class TokenIssuer:
    """Signs tokens of the built-in issuer."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, issuer: str, audience: str, tenant_claim: str) -> None:
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self._tenant_claim = tenant_claim

    def issue(self, *, tenant: str, subject: str, scopes: tuple[str, ...], ttl_s: int) -> str:
        """Returns a JWT; raises ValueError for a tenant, scope or lifetime that the service would refuse."""
        if not TENANT.fullmatch(tenant):
            raise ValueError("a tenant is 1 to 100 letters, digits or one of . _ : @ -")
        if not 1 <= ttl_s <= MAX_LIFETIME_S:
            raise ValueError("a token lives 1 second to 24 hours")
        key = self._keys.primary()
        now = int(self._clock.now())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": now,
            "exp": now + ttl_s,
            "scope": " ".join(scopes),
            self._tenant_claim: tenant,
        }
        return jwt.encode(claims, key.private_key, algorithm=key.algorithm, headers={"kid": key.kid, "typ": "at+jwt"})


class TokenVerifier:
    """Verifies tokens as RFC 8725 asks; docs/authentication.md goes through it point by point."""

    def __init__(
        self, issuers: Mapping[str, VerificationKeys], clock: Clock, *, audience: str, tenant_claim: str
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._parsed: dict[str, tuple[list[dict[str, str]], list[jwt.PyJWK]]] = {}
        self._verified: dict[str, _Verified] = {}

    async def verify(self, authorization: str | None) -> Identity:
        """Returns who calls, from the value of `Authorization`.

        Raises ApiError: AUTH_MISSING_TOKEN, AUTH_TOKEN_EXPIRED, AUTH_INVALID_TOKEN, and STORE_UNAVAILABLE while the
        keys of the token's issuer have never come.
        """
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip(" ")
        if scheme.lower() != "bearer" or not token:
            raise ApiError(Reason.AUTH_MISSING_TOKEN)
        known = self._verified.get(token)
        if known and known.jwks is known.keys.public_jwks() and known.expires_at > self._clock.now() - LEEWAY_S:
            return known.identity
        try:
            verified = await self._read(token)
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise ApiError(Reason.AUTH_INVALID_TOKEN) from None
        if len(self._verified) >= _CACHED:
            self._verified.clear()
        self._verified[token] = verified
        return verified.identity

    async def _read(self, token: str) -> _Verified:
        if len(token) > MOST_CHARACTERS or not _COMPACT.fullmatch(token):
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        header, payload = (_json(part) for part in token.split(".")[:2])
        _check_header(header)
        # Only chooses among keys: the issuer is believed once its own key has verified the signature.
        issuer = payload.get("iss")
        if not isinstance(issuer, str) or issuer not in self._issuers:
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        keys = self._issuers[issuer]
        if not _may_have(keys.public_jwks(), header.get("kid")):
            await keys.seek()
        claims = self._claims(token, header, issuer, keys)
        return _Verified(self._identity(claims), float(claims["exp"]), keys, self._parsed[issuer][0])

    def _claims(self, token: str, header: dict[str, Any], issuer: str, keys: VerificationKeys) -> dict[str, Any]:
        for key in self._parsed_keys(issuer, keys):
            if key.algorithm_name != header["alg"] or header.get("kid") not in (None, key.key_id):
                continue
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[header["alg"]],
                    audience=self._audience,
                    issuer=issuer,
                    # Times are checked below, against the clock that tests can move.
                    options={
                        "require": ["exp", "sub", "iss", "aud"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            except jwt.InvalidSignatureError:
                continue
            self._check_times(claims)
            return claims
        raise ApiError(Reason.AUTH_INVALID_TOKEN)

    def _parsed_keys(self, issuer: str, keys: VerificationKeys) -> list[jwt.PyJWK]:
        jwks = keys.public_jwks()
        if issuer not in self._parsed or jwks is not self._parsed[issuer][0]:
            self._parsed[issuer] = (jwks, [jwt.PyJWK.from_dict(key) for key in jwks])
        return self._parsed[issuer][1]

    def _check_times(self, claims: dict[str, Any]) -> None:
        now = self._clock.now()
        expires_at, not_before = claims["exp"], claims.get("nbf", 0)
        if not all(_is_time(value) for value in (expires_at, not_before, claims.get("iat", 0))):
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        if expires_at <= now - LEEWAY_S:
            raise ApiError(Reason.AUTH_TOKEN_EXPIRED)
        if expires_at > now + MAX_LIFETIME_S + LEEWAY_S or not_before > now + LEEWAY_S:
            raise ApiError(Reason.AUTH_INVALID_TOKEN)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        tenant, subject = claims.get(self._tenant_claim), claims["sub"]
        granted = claims.get("scope", claims.get("scp"))
        scopes = granted.split() if isinstance(granted, str) else granted
        if (
            not isinstance(tenant, str)
            or not TENANT.fullmatch(tenant)
            or not _is_name(subject)
            or not _OF_ID_TOKENS.isdisjoint(claims)
            or not isinstance(scopes, list)
            or not all(isinstance(scope, str) for scope in scopes)
        ):
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        return Identity(tenant, subject, frozenset(scopes))


def _check_header(header: dict[str, Any]) -> None:
    kind = header.get("typ", "JWT")
    if (
        header.get("alg") not in ALGORITHMS
        or not _REFUSED_HEADERS.isdisjoint(header)
        or not isinstance(header.get("kid", ""), str)
        or not isinstance(kind, str)
        or kind.lower().removeprefix("application/") not in TYPES
    ):
        raise ApiError(Reason.AUTH_INVALID_TOKEN)


def _may_have(jwks: list[dict[str, str]], kid: str | None) -> bool:
    return bool(jwks) if kid is None else any(key.get("kid") == kid for key in jwks)


def _json(part: str) -> dict[str, Any]:
    """Returns the object that a part of a token is; raises ValueError, RecursionError or ApiError for anything else."""
    text = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
    found = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(found, dict):
        raise ApiError(Reason.AUTH_INVALID_TOKEN)
    return found


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MOST_SUBJECT_CHARACTERS and value.isprintable()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses an object that has a name twice: parsers disagree which value counts (RFC 8725 section 2.4)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ApiError(Reason.AUTH_INVALID_TOKEN)
    return found
