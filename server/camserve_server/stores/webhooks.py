"""Webhooks as they are registered, and the secrets that sign what is sent to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script
from camserve_server.stores.sealing import Sealer

MOST_WEBHOOKS = 32
ROTATION_MS = 24 * 3600 * 1000

_CREATE = Script("webhook_create", after=["clock", "outbox"])
_ROTATE = Script("webhook_rotate", after=["clock", "outbox"])
_DELETE = Script("webhook_delete", after=["clock", "outbox"])


@dataclass(frozen=True, slots=True)
class WebhookRecord:
    """A webhook; times are unix time in milliseconds. Each secret of `before` signs as well until its time."""

    webhook_id: str
    url: str
    events: tuple[str, ...]
    created_ms: int
    disabled_ms: int | None
    secret: bytes
    before: tuple[tuple[bytes, int], ...] = ()


class Webhooks:
    """The webhooks of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    URLs and secrets are sealed. `now_ms` is Redis's own clock unless a caller gives another, as tests do.
    """

    def __init__(self, redis: Redis, sealer: Sealer, disk: Disk) -> None:
        self._redis = redis
        self._sealer = sealer
        self._disk = disk

    async def create(
        self,
        tenant: str,
        webhook_id: str,
        url: str,
        events: tuple[str, ...],
        secret: bytes,
        *,
        now_ms: int = SERVER_CLOCK_MS,
    ) -> int | None:
        """Registers a webhook and returns when that was in ms, None when the tenant has as many as it may have.

        A second call with the id changes nothing.
        """
        place = keys.webhook(tenant, webhook_id)
        sealed_url, sealed_secret = self._sealer.seal(url.encode(), place), self._sealer.seal(secret, place)
        args: list[int | str | bytes] = [now_ms, webhook_id, MOST_WEBHOOKS]
        args += [sealed_url, ",".join(events), sealed_secret]
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(keys.known_tenants(), tenant)
        pipe.eval(_CREATE.source, 1, keys.tenant(tenant), *args)
        return (await self._disk.execute(pipe))[1] or None

    async def get(self, tenant: str, webhook_id: str) -> WebhookRecord | None:
        """Returns a webhook, None when the tenant has none of that id."""
        place = keys.webhook(tenant, webhook_id)
        with unavailable_on_error():
            fields: Any = await self._redis.hgetall(place)
        if not fields:
            return None
        events = text(fields[b"events"])
        return WebhookRecord(
            webhook_id=webhook_id,
            url=self._sealer.open(fields[b"url"], place).decode(),
            events=tuple(events.split(",")) if events else (),
            created_ms=int(fields[b"created_ms"]),
            disabled_ms=int(fields[b"disabled_ms"]) if b"disabled_ms" in fields else None,
            secret=self._sealer.open(fields[b"secret"], place),
            before=tuple(
                (self._sealer.open(fields[secret], place), int(fields[until_ms]))
                for secret, until_ms in ((b"before1", b"until1_ms"), (b"before2", b"until2_ms"))
                if secret in fields
            ),
        )

    async def all(self, tenant: str) -> list[WebhookRecord]:
        """Returns the tenant's webhooks, the oldest first."""
        with unavailable_on_error():
            ids = await self._redis.hkeys(keys.webhook_filters(tenant))
        found = [await self.get(tenant, text(each)) for each in ids]
        return sorted((each for each in found if each), key=lambda each: (each.created_ms, each.webhook_id))

    async def rotate(
        self, tenant: str, webhook_id: str, secret: bytes, *, nonce: str, now_ms: int = SERVER_CLOCK_MS
    ) -> bool:
        """Gives a webhook a new secret; the two before it sign as well for 24 h. False when there is no such webhook.

        A second call with the nonce changes nothing.
        """
        sealed = self._sealer.seal(secret, keys.webhook(tenant, webhook_id))
        pipe = self._redis.pipeline(transaction=False)
        pipe.eval(_ROTATE.source, 1, keys.tenant(tenant), now_ms, webhook_id, sealed, nonce, ROTATION_MS)
        return bool((await self._disk.execute(pipe))[0])

    async def delete(self, tenant: str, webhook_id: str) -> bool:
        """Removes a webhook and what waits for it; False when there is no such webhook."""
        with unavailable_on_error():
            return bool(await _DELETE.run(self._redis, [keys.tenant(tenant)], [webhook_id]))

    async def callback_secret(self, tenant: str, fresh: bytes) -> bytes:
        """Returns the tenant's callback secret; `fresh` becomes it when there was none."""
        place = keys.callback_secret(tenant)
        pipe = self._redis.pipeline(transaction=False)
        pipe.set(place, self._sealer.seal(fresh, place), nx=True)
        pipe.get(place)
        return self._sealer.open((await self._disk.execute(pipe))[1], place)
