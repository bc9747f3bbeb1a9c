"""Section 4: webhooks, their secrets and their listing."""

from __future__ import annotations

import base64

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.checks.tenancy import webhook_url
from camserve_conformance.kit import Kit
from camserve_conformance.shapes import ID, WEBHOOK, expect_shape

section = Section("webhooks", "4. Messages: webhooks")

_EVENTS = ["job.succeeded", "job.failed", "job.canceled", "job.expired"]
_SECRET_BYTES = 32


async def create(kit: Kit, path: str = "/quiet", events: list[str] | None = None) -> Answer:
    """Makes a webhook, for events that no check brings about unless others are named."""
    wanted = ["job.expired"] if events is None else events
    return await kit.call("CreateWebhook", {"url": webhook_url(kit, path), "events": wanted})


def _is_secret(secret: str) -> bool:
    try:
        raw = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        return False
    return secret.startswith("whsec_") and len(raw) == _SECRET_BYTES


@section.check("POST /v1/webhooks answers 201.", ways=BOTH)
async def created(kit: Kit) -> None:
    (await create(kit)).expect_status(201)


@section.check("Webhook has its members, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await create(kit)
    expect_shape(answer, answer.need(), WEBHOOK)


@section.check("Webhook ids match ^[a-z]+_[0-9A-Za-z]{16,40}$.", ways=BOTH)
async def ids(kit: Kit) -> None:
    answer = await create(kit)
    answer.expect(ID.fullmatch(answer.need()["webhook_id"]), "webhook_id does not match the pattern of ids")


@section.check("A webhook says its url and events.", ways=BOTH)
async def described(kit: Kit) -> None:
    answer = await create(kit, "/described", _EVENTS[2:])
    told = answer.need()["url"], sorted(answer.body["events"])
    answer.expect_equal("the webhook", told, (webhook_url(kit, "/described"), _EVENTS[2:]))


@section.check("The secret is whsec_ and the base64 of 32 bytes.", ways=BOTH)
async def secret(kit: Kit) -> None:
    answer = await create(kit)
    answer.expect(_is_secret(str(answer.need().get("secret"))), "the secret is none")


@section.check("The secret is shown once: GET does not have it.", ways=BOTH)
async def secret_once(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    answer = await kit.call("GetWebhook", named)
    answer.expect("secret" not in answer.need(), "the secret is shown again")


@section.check("The secret is shown once: the listing does not have it.", ways=BOTH)
async def secret_not_listed(kit: Kit) -> None:
    (await create(kit)).need()
    answer = await kit.call("ListWebhooks")
    answer.expect(not [each for each in answer.need()["webhooks"] if "secret" in each], "a secret is shown again")


@section.check("GET /v1/webhooks/{webhook_id} answers 200.", ways=BOTH)
async def got(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    (await kit.call("GetWebhook", named)).expect_status(200)


@section.check("A webhook is listed.", ways=BOTH)
async def listed(kit: Kit) -> None:
    webhook_id = (await create(kit)).need()["webhook_id"]
    answer = await kit.call("ListWebhooks")
    found = [each["webhook_id"] for each in answer.need()["webhooks"]]
    answer.expect(webhook_id in found, "the webhook is not in the listing")


@section.check("DELETE /v1/webhooks/{webhook_id} answers 204.", ways=BOTH)
async def deleted(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    (await kit.call("DeleteWebhook", named)).expect_status(204)


@section.check("After DELETE a webhook is webhook.not_found.", ways=BOTH)
async def gone(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    (await kit.call("DeleteWebhook", named)).need()
    answer = await kit.call("GetWebhook", named)
    answer.expect_equal("the error's code", answer.code, "webhook.not_found")


@section.check("POST …:rotate answers 200.", ways=BOTH)
async def rotated(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    (await kit.call("RotateWebhookSecret", named)).expect_status(200)


@section.check("…:rotate gives a new secret.", ways=BOTH)
async def new_secret(kit: Kit) -> None:
    first = (await create(kit)).need()
    answer = await kit.call("RotateWebhookSecret", {"webhook_id": first["webhook_id"]})
    told = str(answer.need().get("secret"))
    answer.expect(_is_secret(told) and told != first["secret"], "the secret is none, or the old one")


@section.check("GET …/deliveries answers 200.", ways=BOTH)
async def listing(kit: Kit) -> None:
    named = {"webhook_id": (await create(kit)).need()["webhook_id"]}
    (await kit.call("ListDeliveries", named)).expect_status(200)


@section.check("The callback secret is whsec_ and the base64 of 32 bytes.", ways=BOTH)
async def callback_secret(kit: Kit) -> None:
    answer = await kit.call("GetCallbackSecret")
    answer.expect(_is_secret(str(answer.need().get("secret"))), "the secret is none")


@section.check("An event that there is not is refused.", ways=BOTH)
async def other_event(kit: Kit) -> None:
    answer = await create(kit, events=["job.camserve_conformance"])
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


# Only the kit's own receiver is told of the jobs of other checks.
@section.check("No events means all.", ways=BOTH, needs=("receive",))
async def all_events(kit: Kit) -> None:
    answer = await create(kit, "/all", [])
    answer.expect(answer.ok, f"a webhook without events answered {answer.status} {answer.code}")
    answer.expect_equal("events", answer.need()["events"], [])
