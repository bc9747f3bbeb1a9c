"""Webhooks: registered, rotated and removed, and what became of the events sent to them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

import orjson

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import derived_id, new_id
from camserve_server.core.cursors import Cursors
from camserve_server.core.webhook_signing import SECRET_BYTES
from camserve_server.outbound.client import GuardedClient
from camserve_server.outbound.targets import NotAllowedError
from camserve_server.stores.outbox import DeliveryRecord, Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import MOST_WEBHOOKS, WebhookRecord, Webhooks

TEST_EVENT = "webhook.test"
# The job of test events, which never was.
TEST_JOB = "job_" + "0" * 22
_ID = re.compile(r"[a-z]+_[0-9A-Za-z]{16,40}")
_MOST_LOOKED_AT = 2_000


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook whose secret is told, which happens once."""

    webhook: WebhookRecord
    secret: bytes


class WebhookService:
    """A tenant's webhooks. Under a nonce a second call is the same one, with the same secret."""

    def __init__(
        self, webhooks: Webhooks, outbox: Outbox, client: GuardedClient, cursors: Cursors, sealer: Sealer
    ) -> None:
        self._sealer = sealer
        self._webhooks = webhooks
        self._outbox = outbox
        self._client = client
        self._cursors = cursors

    def check_url(self, url: str) -> None:
        """Raises ApiError(WEBHOOK_URL_NOT_ALLOWED) for a URL to which nothing is ever sent; nothing is sent."""
        try:
            self._client.check(url)
        except NotAllowedError:
            raise ApiError(Reason.WEBHOOK_URL_NOT_ALLOWED) from None

    async def create(self, tenant: str, url: str, events: tuple[str, ...], *, nonce: str | None = None) -> NewSecret:
        """Registers a webhook; raises ApiError: WEBHOOK_URL_NOT_ALLOWED, PARAM_OUT_OF_RANGE for one too many."""
        self.check_url(url)
        webhook_id = derived_id("webhook", nonce) if nonce else new_id("webhook")
        secret = self._secret(nonce)
        created_ms = await self._webhooks.create(tenant, webhook_id, url, events, secret)
        if created_ms is None:
            raise ApiError(
                Reason.PARAM_OUT_OF_RANGE, "The tenant has as many webhooks as it may have.", maximum=MOST_WEBHOOKS
            )
        return NewSecret(WebhookRecord(webhook_id, url, events, created_ms, None, secret), secret)

    async def all(self, tenant: str) -> list[WebhookRecord]:
        """Returns the tenant's webhooks, the oldest first."""
        return await self._webhooks.all(tenant)

    async def get(self, tenant: str, webhook_id: str) -> WebhookRecord:
        """Returns a webhook; raises ApiError(WEBHOOK_NOT_FOUND)."""
        webhook = await self._webhooks.get(tenant, webhook_id) if _ID.fullmatch(webhook_id) else None
        if webhook is None:
            raise ApiError(Reason.WEBHOOK_NOT_FOUND)
        return webhook

    async def delete(self, tenant: str, webhook_id: str) -> None:
        """Removes a webhook; raises ApiError(WEBHOOK_NOT_FOUND)."""
        if not _ID.fullmatch(webhook_id) or not await self._webhooks.delete(tenant, webhook_id):
            raise ApiError(Reason.WEBHOOK_NOT_FOUND)

    async def rotate(self, tenant: str, webhook_id: str, *, nonce: str | None = None) -> NewSecret:
        """Gives a webhook a new secret; raises ApiError(WEBHOOK_NOT_FOUND)."""
        await self.get(tenant, webhook_id)
        secret = self._secret(nonce)
        await self._webhooks.rotate(tenant, webhook_id, secret, nonce=nonce or secrets.token_hex(16))
        return NewSecret(await self.get(tenant, webhook_id), secret)

    async def callback_secret(self, tenant: str) -> bytes:
        """Returns the secret that signs what goes to callback URLs."""
        return await self._webhooks.callback_secret(tenant, secrets.token_bytes(SECRET_BYTES))

    async def test(self, tenant: str, webhook_id: str, *, nonce: str | None = None) -> DeliveryRecord:
        """Sends an event about no job; raises ApiError(WEBHOOK_NOT_FOUND)."""
        event_id = derived_id("evt", nonce) if nonce else new_id("evt")
        return await self._send(tenant, webhook_id, event_id, event=TEST_EVENT, job_id=TEST_JOB)

    async def redeliver(self, tenant: str, webhook_id: str, event_id: str) -> DeliveryRecord:
        """Sends an event again; raises ApiError(WEBHOOK_NOT_FOUND) for one that the webhook never had."""
        return await self._send(tenant, webhook_id, event_id)

    async def deliveries(
        self, tenant: str, webhook_id: str, *, status: str, cursor: str, limit: int
    ) -> tuple[list[DeliveryRecord], str | None]:
        """Returns a page of deliveries, the newest first, and the cursor of the next page.

        A page may have fewer deliveries than `limit` although others follow. Raises ApiError: WEBHOOK_NOT_FOUND,
        CURSOR_INVALID.
        """
        await self.get(tenant, webhook_id)
        listing = orjson.dumps([tenant, "deliveries", webhook_id, status]).decode()
        before = _position(self._cursors.read(listing, cursor)) if cursor else None
        found: list[DeliveryRecord] = []
        looked_at = 0
        while True:
            rows = await self._outbox.page(tenant, webhook_id, before=before, count=limit + 1)
            for position, record in rows:
                if len(found) == limit or looked_at == _MOST_LOOKED_AT:
                    return found, self._cursors.make(listing, orjson.dumps(before).decode())
                looked_at += 1
                before = position
                if record and status in ("", record.status):
                    found.append(record)
            if len(rows) <= limit:
                return found, None

    def _secret(self, nonce: str | None) -> bytes:
        """Makes a secret; attempts under one nonce make the same one, so that none tells one that is not used."""
        return self._sealer.derive(nonce) if nonce else secrets.token_bytes(SECRET_BYTES)

    async def _send(
        self, tenant: str, webhook_id: str, event_id: str, *, event: str = "", job_id: str = ""
    ) -> DeliveryRecord:
        known = _ID.fullmatch(webhook_id) and _ID.fullmatch(event_id)
        if known and await self._outbox.send(tenant, webhook_id, event_id, event=event, job_id=job_id):
            record = await self._outbox.delivery(tenant, webhook_id, event_id)
            if record is not None:
                return record
        raise ApiError(Reason.WEBHOOK_NOT_FOUND)


def _position(text: str) -> tuple[int, str]:
    added_ms, event_id = orjson.loads(text)
    return added_ms, event_id
