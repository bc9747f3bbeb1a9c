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
LEEWAY_S = 10
MAX_LIFETIME_S = 24 * 3600
SCOPES = ("inference.read", "inference.write", "jobs.read", "jobs.write", "webhooks.read", "webhooks.write")
TENANT = re.compile(r"[A-Za-z0-9._:@-]{1,100}")
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
        """Returns JSON Web Keys."""


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
        return jwt.encode(claims, key.private_key, algorithm=key.algorithm, headers={"kid": key.kid})


class TokenVerifier:
    """Verifies tokens as RFC 8725 asks: fixed algorithms, issuer, audience, lifetime, no unknown `crit`."""

    def __init__(
        self, issuers: Mapping[str, VerificationKeys], clock: Clock, *, audience: str, tenant_claim: str
    ) -> None:
        self._issuers = issuers
        self._clock = clock
        self._audience = audience
        self._tenant_claim = tenant_claim
        self._parsed: dict[str, tuple[list[dict[str, str]], list[jwt.PyJWK]]] = {}
        self._verified: dict[str, tuple[float, Identity]] = {}

    def verify(self, authorization: str | None) -> Identity:
        """Returns who calls, from the value of `Authorization`.

        Raises ApiError: AUTH_MISSING_TOKEN, AUTH_TOKEN_EXPIRED, AUTH_INVALID_TOKEN.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise ApiError(Reason.AUTH_MISSING_TOKEN)
        token = token.strip()
        self._refresh_keys()
        known = self._verified.get(token)
        if known and known[0] > self._clock.now() - LEEWAY_S:
            return known[1]
        expires_at, identity = self._read(token)
        if len(self._verified) >= _CACHED:
            self._verified.clear()
        self._verified[token] = (expires_at, identity)
        return identity

    def _read(self, token: str) -> tuple[float, Identity]:
        try:
            header = jwt.get_unverified_header(token)
            if "crit" in header or header.get("alg") not in ALGORITHMS:
                raise ApiError(Reason.AUTH_INVALID_TOKEN)
            claims = self._claims(token, header)
        except (jwt.PyJWTError, RecursionError):
            raise ApiError(Reason.AUTH_INVALID_TOKEN) from None
        return float(claims["exp"]), self._identity(claims)

    def _claims(self, token: str, header: dict[str, Any]) -> dict[str, Any]:
        # Only chooses among keys: the issuer is believed once its own key has verified the signature.
        claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        _, keys = self._parsed.get(claimed, ([], [])) if isinstance(claimed, str) else ([], [])
        for key in keys:
            if key.algorithm_name != header["alg"] or header.get("kid") not in (None, key.key_id):
                continue
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[header["alg"]],
                    audience=self._audience,
                    issuer=claimed,
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
            json.loads(_payload(token), object_pairs_hook=_refuse_twins)
            self._check_times(claims)
            return claims
        raise ApiError(Reason.AUTH_INVALID_TOKEN)

    def _check_times(self, claims: dict[str, Any]) -> None:
        now = self._clock.now()
        expires_at, not_before = claims["exp"], claims.get("nbf", 0)
        if not all(_is_time(value) for value in (expires_at, not_before)):
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        if expires_at <= now - LEEWAY_S:
            raise ApiError(Reason.AUTH_TOKEN_EXPIRED)
        if expires_at > now + MAX_LIFETIME_S + LEEWAY_S or not_before > now + LEEWAY_S:
            raise ApiError(Reason.AUTH_INVALID_TOKEN)

    def _identity(self, claims: dict[str, Any]) -> Identity:
        tenant, subject = claims.get(self._tenant_claim), claims["sub"]
        granted = claims.get("scope", claims.get("scp", ""))
        scopes = granted.split() if isinstance(granted, str) else granted
        if (
            not isinstance(tenant, str)
            or not TENANT.fullmatch(tenant)
            or not isinstance(subject, str)
            or not isinstance(scopes, list)
            or not all(isinstance(scope, str) for scope in scopes)
        ):
            raise ApiError(Reason.AUTH_INVALID_TOKEN)
        return Identity(tenant, subject, frozenset(scopes))

    def _refresh_keys(self) -> None:
        for issuer, keys in self._issuers.items():
            jwks = keys.public_jwks()
            if jwks is not self._parsed.get(issuer, (None,))[0]:
                self._parsed[issuer] = (jwks, [jwt.PyJWK.from_dict(key) for key in jwks])
                self._verified.clear()


def _payload(token: str) -> bytes:
    encoded = token.split(".")[1]
    return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_twins(pairs: list[tuple[str, Any]]) -> None:
    """Refuses an object that has a name twice: parsers disagree which value counts (RFC 8725 section 2.4)."""
    if len({name for name, _ in pairs}) < len(pairs):
        raise ApiError(Reason.AUTH_INVALID_TOKEN)
