"""OAuth clients: who may fetch tokens with an id and a secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from camserve_server.base.clock import Clock
from camserve_server.base.ids import base62, new_id
from camserve_server.stores import keys
from camserve_server.stores.redis import text, unavailable_on_error

_CLIENT_ID = re.compile(r"client_[0-9A-Za-z]{22}")
_NOBODY = "client_" + "0" * 22


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
    endpoint.
    """

    def __init__(self, redis: Redis, *, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock

    async def create(self, tenant: str, scopes: Iterable[str]) -> tuple[str, str]:
        """Returns the id and the secret of a new client; the secret cannot be had again."""
        client_id = new_id("client")
        secret = "secret_" + base62(secrets.randbits(256), 43)
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

    async def verify(self, client_id: str, secret: str) -> OAuthClient | None:
        """Returns the client when id and secret belong together, else None.

        An unknown id costs the same look-up and comparison as a wrong secret.
        """
        known_form = _CLIENT_ID.fullmatch(client_id) is not None
        record = await self._record(client_id if known_form else _NOBODY)
        expected = record.get("secret_sha256", _digest(""))
        matches = hmac.compare_digest(_digest(secret), expected)
        return _client(client_id, record) if matches and record and known_form else None

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


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
