"""OAuth clients: who may fetch tokens with an id and a secret."""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import base62, new_id
from camserve_server.stores import keys
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script

FAILURES = 10
FAILURES_COUNT_MS = 60_000
_CLIENT_ID = re.compile(r"client_[0-9A-Za-z]{22}")

_SIGN_IN = Script("client_sign_in", after=["clock"])
_ROTATE = Script("client_rotate", after=["clock"])


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """One client; `created_at` is unix time in seconds."""

    client_id: str
    tenant: str
    scopes: tuple[str, ...]
    created_at: float


class OAuthClients:
    """The clients of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    Of a secret only its SHA-256 is kept. A slow hash protects what people make up; here the secret is 256
    random bits, which nobody finds by trying, and a slow hash would let strangers burn our CPU at the token
    endpoint. `now_ms` is Redis's own clock, which all replicas share, unless a caller gives another, as tests do.
    """

    def __init__(self, redis: Redis, *, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock

    async def create(self, tenant: str, scopes: Iterable[str]) -> tuple[str, str]:
        """Returns the id and the secret of a new client; the secret cannot be had again."""
        client_id = new_id("client")
        secret = _new_secret()
        record: dict[FieldT, EncodableT] = {
            "tenant": tenant,
            "scopes": " ".join(scopes),
            "secret_sha256": _digest(secret),
            "created_at": repr(self._clock.now()),
        }
        with unavailable_on_error():
            # The tenant's set comes first: a crash between the two leaves a name that `list` drops, never a
            # client that works and is not listed.
            await self._redis.sadd(keys.oauth_clients(tenant), client_id)
            await self._redis.hset(keys.oauth_client(client_id), mapping=record)
        return client_id, secret

    async def verify(self, client_id: str, secret: str, *, now_ms: int = SERVER_CLOCK_MS) -> OAuthClient | None:
        """Returns the client when id and secret belong together, else None.

        Raises ApiError(RATE_EXCEEDED) without a look at the secret once 10 attempts at the id failed within a minute.
        An unknown id takes the same steps as a wrong secret.
        """
        # What is no id of ours gets a short name, however long it is.
        name = client_id if _CLIENT_ID.fullmatch(client_id) else _digest(client_id)
        with unavailable_on_error():
            verdict, *rest = await _SIGN_IN.run(
                self._redis,
                [keys.oauth_client(name), keys.client_failures(name)],
                [now_ms, _digest(secret), FAILURES, FAILURES_COUNT_MS],
            )
        if verdict == b"wait":
            raise ApiError(
                Reason.RATE_EXCEEDED,
                "Too many attempts to sign in failed.",
                retry_after_s=max(1, math.ceil(rest[0] / 1000)),
            )
        if verdict == b"refused":
            return None
        tenant, scopes, created_at = (text(each) for each in rest)
        return OAuthClient(client_id, tenant, tuple(scopes.split()), float(created_at))

    async def rotate(
        self, tenant: str, client_id: str, *, overlap_ms: int, now_ms: int = SERVER_CLOCK_MS
    ) -> str | None:
        """Returns the new secret of a client of this tenant, None when there is no such client.

        The secret before it works for `overlap_ms`; an older one ends now.
        """
        secret = _new_secret()
        with unavailable_on_error():
            known = await _ROTATE.run(
                self._redis, [keys.oauth_client(client_id)], [now_ms, tenant, _digest(secret), overlap_ms]
            )
        return secret if known else None

    async def list(self, tenant: str) -> list[OAuthClient]:
        """Returns the tenant's clients, the oldest first."""
        with unavailable_on_error():
            members = await self._redis.smembers(keys.oauth_clients(tenant))
        clients = []
        for member in members:
            client_id = text(member)
            if record := await self._record(client_id):
                clients.append(_client(client_id, record))
        return sorted(clients, key=lambda client: (client.created_at, client.client_id))

    async def revoke(self, tenant: str, client_id: str) -> bool:
        """Ends a client of this tenant at once; returns False when the tenant has no such client."""
        record = await self._record(client_id)
        if record.get("tenant") != tenant:
            return False
        with unavailable_on_error():
            await self._redis.delete(keys.oauth_client(client_id))
            await self._redis.srem(keys.oauth_clients(tenant), client_id)
        return True

    async def _record(self, client_id: str) -> dict[str, str]:
        with unavailable_on_error():
            fields = await self._redis.hgetall(keys.oauth_client(client_id))
        return {text(name): text(value) for name, value in fields.items()}


def _client(client_id: str, record: dict[str, str]) -> OAuthClient:
    return OAuthClient(client_id, record["tenant"], tuple(record["scopes"].split()), float(record["created_at"]))


def _new_secret() -> str:
    return "secret_" + base62(secrets.randbits(256), 43)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
