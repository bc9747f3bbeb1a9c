"""Webhooks: registered, received, verified."""

from __future__ import annotations

import asyncio
import json

import pytest
from clients.python.tests.conftest import address
from clients.python.tests.pictures import STAR
from tests.e2e.receiver import receiver

from camserve_client import AsyncClient, CamserveError, verify_webhook
from camserve_server.core.webhook_signing import secret_text, signed_headers

KEYS = [bytes([number]) * 32 for number in range(3)]
SECRETS = [secret_text(key) for key in KEYS]
BODY = json.dumps(
    {
        "event": "job.succeeded",
        "job_id": "job_1",
        "status": "succeeded",
        "items_succeeded": 9,
        "items_failed": 1,
        "results_url": "https://example.com/r",
        "link_to_results": "https://example.com/r",
        "metadata": {"order": 7},
    }
).encode()
NOW = 1_795_475_251


def signed(*keys, at=NOW, body=BODY):
    return signed_headers(keys, "evt_1", at, body)


def test_an_authentic_event_is_returned():
    event = verify_webhook(signed(KEYS[0]), BODY, SECRETS[0], now=NOW)
    assert (event.id, event.event, event.job_id, event.status) == ("evt_1", "job.succeeded", "job_1", "succeeded")
    assert (event.items_succeeded, event.items_failed, event.metadata) == (9, 1, {"order": 7})


def test_headers_may_have_any_case():
    headers = {name.title(): value for name, value in signed(KEYS[0]).items()}
    assert verify_webhook(headers, BODY, [SECRETS[0]], now=NOW)


def test_one_of_several_secrets_and_signatures_is_enough():
    assert verify_webhook(signed(KEYS[0], KEYS[1]), BODY, SECRETS[1], now=NOW)
    assert verify_webhook(signed(KEYS[1]), BODY, [SECRETS[2], SECRETS[1]], now=NOW)


@pytest.mark.parametrize(
    ("headers", "body", "secrets"),
    [
        (signed(KEYS[0]), BODY, SECRETS[1]),
        (signed(KEYS[0]), BODY, []),
        (signed(KEYS[0]), BODY + b" ", SECRETS[0]),
        (signed(KEYS[0]) | {"x-event-id": "evt_2"}, BODY, SECRETS[0]),
        (signed(KEYS[0]) | {"x-timestamp": str(NOW + 1)}, BODY, SECRETS[0]),
        (signed(KEYS[0]) | {"x-signature": ""}, BODY, SECRETS[0]),
        (signed(KEYS[0]) | {"x-signature": "sha256=é"}, BODY, SECRETS[0]),
        ({}, BODY, SECRETS[0]),
        ({}, b"", SECRETS),
    ],
)
def test_what_is_not_signed_is_refused(headers, body, secrets):
    with pytest.raises(CamserveError) as refused:
        verify_webhook(headers, body, secrets, now=NOW)
    assert (refused.value.code, refused.value.status) == ("signature.invalid", 403)


@pytest.mark.parametrize(("at", "tolerance_s"), [(NOW - 301, 300), (NOW + 301, 300), (NOW - 11, 10)])
def test_an_old_event_is_refused(at, tolerance_s):
    with pytest.raises(CamserveError) as refused:
        verify_webhook(signed(KEYS[0], at=at), BODY, SECRETS[0], tolerance_s, now=NOW)
    assert refused.value.code == "signature.expired"
    assert verify_webhook(signed(KEYS[0], at=at), BODY, SECRETS[0], 302, now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_!!!", SECRETS[0].removeprefix("whsec_"), SECRETS[0][:-8]])
def test_a_secret_that_is_none_is_told(secret):
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(signed(KEYS[0]), BODY, secret, now=NOW)


@pytest.mark.timeout(180)
async def test_an_event_of_the_service_is_authentic(make_stack):
    with receiver() as server:
        stack = make_stack(webhook_allow=server.place, webhook_retry_s=1)
        for way in ("grpc", "rest"):
            token = stack.token(tenant=way)
            async with AsyncClient(address(stack, way), token=token) as client:
                webhook = await client.webhooks.create(server.url(f"/{way}"), events=["job.succeeded"])
                assert "whsec_" not in repr(webhook)
                assert [one.webhook_id for one in await client.webhooks.list()] == [webhook.webhook_id]
                assert (await client.webhooks.get(webhook.webhook_id)).secret is None
                callback = await client.webhooks.callback_secret()
                job = await client.submit([STAR], model="shapes", callback_url=server.url(f"/{way}/callback"))
                for path, secret in ((f"/{way}", webhook.secret), (f"/{way}/callback", callback)):
                    (event,) = await asyncio.to_thread(server.wait, path, 1)
                    assert verify_webhook(event.headers, event.body, secret).job_id == job.id
                rotated = await client.webhooks.rotate(webhook.webhook_id)
                assert (await client.webhooks.test(webhook.webhook_id)).event == "webhook.test"
                event = (await asyncio.to_thread(server.wait, f"/{way}", 2))[-1]
                for secret in (webhook.secret, rotated.secret):
                    assert verify_webhook(event.headers, event.body, secret).event == "webhook.test"
                deliveries = [one async for one in client.webhooks.deliveries(webhook.webhook_id)]
                assert [one.event for one in deliveries] == ["webhook.test", "job.succeeded"]
                again = await client.webhooks.redeliver(webhook.webhook_id, deliveries[1].event_id)
                assert again.event_id == deliveries[1].event_id
                await client.webhooks.delete(webhook.webhook_id)
                assert await client.webhooks.list() == ()


@pytest.mark.parametrize("body", [b"no JSON", b"{}", b"[]", b"[" * 200_000])
def test_what_is_signed_and_no_event_is_told(body):
    with pytest.raises(CamserveError) as refused:
        verify_webhook(signed(KEYS[0], body=body), body, SECRETS[0], now=NOW)
    assert refused.value.code == "answer.invalid"


def test_a_body_may_be_any_bytes_and_no_text():
    for body in (bytearray(BODY), memoryview(BODY)):
        assert verify_webhook(signed(KEYS[0]), body, SECRETS[0], now=NOW)
    with pytest.raises(TypeError, match="bytes"):
        verify_webhook(signed(KEYS[0]), BODY.decode(), SECRETS[0], now=NOW)
    for secret in (b"whsec_", [b"whsec_"]):
        with pytest.raises(TypeError, match="text"):
            verify_webhook(signed(KEYS[0]), BODY, secret, now=NOW)
