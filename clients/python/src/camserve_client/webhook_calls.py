"""Webhooks of a tenant."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal

from camserve_client.calls import Calls
from camserve_client.convert import result
from camserve_client.gen import methods
from camserve_client.gen import webhooks_pb2 as pb
from camserve_client.results import Delivery, DeliveryStatus, Webhook

Event = Literal["job.succeeded", "job.failed", "job.canceled", "job.expired"]


class AsyncWebhooks:
    """Registers webhooks and tells what became of their deliveries; every method raises CamserveError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def create(self, url: str, *, events: Sequence[Event] = (), idempotency_key: str | None = None) -> Webhook:
        """Registers a webhook for `events`, none meaning all, and returns it with its secret: this once."""
        request = pb.CreateWebhookRequest(url=url, events=events)
        return result(Webhook, (await self._calls.unary(methods.CREATE_WEBHOOK, request, key=idempotency_key)).message)

    async def list(self) -> tuple[Webhook, ...]:
        """Returns every webhook, the oldest first."""
        answer = await self._calls.unary(methods.LIST_WEBHOOKS, pb.ListWebhooksRequest())
        return tuple(result(Webhook, one) for one in answer.message.webhooks)

    async def get(self, webhook_id: str) -> Webhook:
        """Returns one webhook."""
        answer = await self._calls.unary(methods.GET_WEBHOOK, pb.GetWebhookRequest(webhook_id=webhook_id))
        return result(Webhook, answer.message)

    async def delete(self, webhook_id: str) -> None:
        """Removes a webhook; what is not yet sent never is."""
        await self._calls.unary(methods.DELETE_WEBHOOK, pb.DeleteWebhookRequest(webhook_id=webhook_id))

    async def test(self, webhook_id: str) -> Delivery:
        """Sends the event `webhook.test`."""
        answer = await self._calls.unary(methods.TEST_WEBHOOK, pb.TestWebhookRequest(webhook_id=webhook_id))
        return result(Delivery, answer.message)

    async def rotate(self, webhook_id: str) -> Webhook:
        """Returns the webhook with a new secret; for 24 hours events carry the signatures of both."""
        request = pb.RotateWebhookSecretRequest(webhook_id=webhook_id)
        return result(Webhook, (await self._calls.unary(methods.ROTATE_WEBHOOK_SECRET, request)).message)

    async def deliveries(self, webhook_id: str, *, status: DeliveryStatus | None = None) -> AsyncGenerator[Delivery]:
        """Yields the deliveries of the last 7 days, the newest first."""
        cursor = ""
        while True:
            request = pb.ListDeliveriesRequest(webhook_id=webhook_id, status=status or "", cursor=cursor, limit=200)
            page = (await self._calls.unary(methods.LIST_DELIVERIES, request)).message
            for one in page.deliveries:
                yield result(Delivery, one)
            cursor = page.page.next_cursor
            if not cursor:
                return

    async def redeliver(self, webhook_id: str, event_id: str) -> Delivery:
        """Sends an event again, with all its attempts."""
        request = pb.RedeliverRequest(webhook_id=webhook_id, event_id=event_id)
        return result(Delivery, (await self._calls.unary(methods.REDELIVER, request)).message)

    async def callback_secret(self) -> str:
        """Returns the secret that signs events sent to the `callback_url` of jobs."""
        answer = await self._calls.unary(methods.GET_CALLBACK_SECRET, pb.GetCallbackSecretRequest())
        return answer.message.secret
