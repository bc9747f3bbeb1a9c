"""WebhookService: events about jobs for the caller's own servers."""

from __future__ import annotations

from google.protobuf import empty_pb2

from camserve.v1 import webhooks_pb2 as pb
from camserve.v1.models_pb2 import Page
from camserve_server.core.webhook_signing import secret_text
from camserve_server.core.webhooks import NewSecret, WebhookService
from camserve_server.rpc.answers import timestamp
from camserve_server.rpc.call import Call
from camserve_server.stores.outbox import DeliveryRecord
from camserve_server.stores.webhooks import WebhookRecord

DEFAULT_PAGE = 50


class WebhookServicer:
    """Converts between messages and the rules in core/webhooks; `prefix` begins every link."""

    def __init__(self, webhooks: WebhookService, *, prefix: str) -> None:
        self._webhooks = webhooks
        self._prefix = prefix

    async def create_webhook(self, call: Call, request: pb.CreateWebhookRequest) -> pb.Webhook:
        """Registers a webhook."""
        made = await self._webhooks.create(call.identity.tenant, request.url, tuple(request.events), nonce=call.nonce)
        call.headers["location"] = f"{self._prefix}/v1/webhooks/{made.webhook.webhook_id}"
        return _with_secret(made)

    async def list_webhooks(self, call: Call, request: pb.ListWebhooksRequest) -> pb.ListWebhooksResponse:
        """Lists webhooks, the oldest first."""
        found = await self._webhooks.all(call.identity.tenant)
        return pb.ListWebhooksResponse(webhooks=[_webhook(each) for each in found], page=Page(size=len(found)))

    async def get_webhook(self, call: Call, request: pb.GetWebhookRequest) -> pb.Webhook:
        """Returns one webhook."""
        return _webhook(await self._webhooks.get(call.identity.tenant, request.webhook_id))

    async def delete_webhook(self, call: Call, request: pb.DeleteWebhookRequest) -> empty_pb2.Empty:
        """Removes a webhook."""
        await self._webhooks.delete(call.identity.tenant, request.webhook_id)
        return empty_pb2.Empty()

    async def test_webhook(self, call: Call, request: pb.TestWebhookRequest) -> pb.Delivery:
        """Sends an event about no job."""
        return _delivery(await self._webhooks.test(call.identity.tenant, request.webhook_id, nonce=call.nonce))

    async def rotate_webhook_secret(self, call: Call, request: pb.RotateWebhookSecretRequest) -> pb.Webhook:
        """Gives a webhook a new secret."""
        return _with_secret(await self._webhooks.rotate(call.identity.tenant, request.webhook_id, nonce=call.nonce))

    async def list_deliveries(self, call: Call, request: pb.ListDeliveriesRequest) -> pb.ListDeliveriesResponse:
        """Lists what became of events, the newest first."""
        found, cursor = await self._webhooks.deliveries(
            call.identity.tenant,
            request.webhook_id,
            status=request.status,
            cursor=request.cursor,
            limit=request.limit if request.HasField("limit") else DEFAULT_PAGE,
        )
        return pb.ListDeliveriesResponse(
            deliveries=[_delivery(each) for each in found], page=Page(next_cursor=cursor, size=len(found))
        )

    async def redeliver(self, call: Call, request: pb.RedeliverRequest) -> pb.Delivery:
        """Sends an event again."""
        return _delivery(await self._webhooks.redeliver(call.identity.tenant, request.webhook_id, request.event_id))

    async def get_callback_secret(
        self, call: Call, request: pb.GetCallbackSecretRequest
    ) -> pb.GetCallbackSecretResponse:
        """Returns the secret that signs what goes to callback URLs."""
        return pb.GetCallbackSecretResponse(
            secret=secret_text(await self._webhooks.callback_secret(call.identity.tenant))
        )


def _with_secret(made: NewSecret) -> pb.Webhook:
    message = _webhook(made.webhook)
    message.secret = secret_text(made.secret)
    return message


def _webhook(webhook: WebhookRecord) -> pb.Webhook:
    message = pb.Webhook(
        webhook_id=webhook.webhook_id,
        url=webhook.url,
        events=webhook.events,
        created_at=timestamp(webhook.created_ms),
    )
    if webhook.disabled_ms is not None:
        message.disabled_at.CopyFrom(timestamp(webhook.disabled_ms))
    return message


def _delivery(delivery: DeliveryRecord) -> pb.Delivery:
    message = pb.Delivery(
        event_id=delivery.event_id,
        event=delivery.event,
        job_id=delivery.job_id,
        status=pb.Delivery.Status.Value(delivery.status),
        attempts=delivery.attempts,
        last_status=delivery.last_status,
    )
    if delivery.next_ms is not None:
        message.next_attempt_at.CopyFrom(timestamp(delivery.next_ms))
    return message
