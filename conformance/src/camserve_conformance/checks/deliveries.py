"""Section 4: the events that come to the kit's receiver."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.checks.tenancy import webhook_url
from camserve_conformance.checks.webhooks import create
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import ViolationError
from camserve_conformance.receiver import Event
from camserve_conformance.shapes import DELIVERY, ID, PAGE, expect_shape, moment

section = Section("deliveries", "4. Webhook delivery")

_OLD_S = 300
_PAUSE_S = 3600
# The delivery and the webhook may be written one after the other.
_LOOKS, _LOOK_PAUSE_S = 20, 0.25
_BODY = {
    "event": "a string",
    "job_id": "a string",
    "status": "a string",
    "items_succeeded": "an int32, as a number",
    "items_failed": "an int32, as a number",
    "results_url": "a string",
    "link_to_results": "a string",
    "metadata": "an object",
}


def _path() -> str:
    return f"/{uuid4()}"


def _signature(secret: str, text: bytes) -> bytes:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return hmac.digest(key, text, "sha256")


def _expect_ours(event: Event, secret: str) -> None:
    signed = f"{event.headers.get('x-event-id', '')}.{event.headers.get('x-timestamp', '')}.".encode() + event.body
    wanted = f"sha256={_signature(secret, signed).hex()}"
    if wanted not in [each.strip() for each in event.headers.get("x-signature", "").split(",")]:
        raise ViolationError("no X-Signature is the HMAC-SHA256 of id, timestamp and body under the secret")


async def _told(kit: Kit) -> tuple[dict[str, Any], Event]:
    """Returns a job with a callback URL and the event that came there, which checks share."""

    async def make() -> tuple[dict[str, Any], Event]:
        path = _path()
        inputs = [{"id": name, "image": image(name)} for name in ("star.png", "truncated.png")]
        answer = await kit.create_job(inputs, callback_url=webhook_url(kit, path), metadata={"order": 7})
        event = (await kit.receiver.wait(path))[0]
        return answer.need(), event

    found: tuple[dict[str, Any], Event] = await kit.once("told of a job", make)
    return found


async def _tested(kit: Kit) -> tuple[dict[str, Any], Event]:
    """Returns a webhook and the test event that came to it, which checks share."""

    async def make() -> tuple[dict[str, Any], Event]:
        path = _path()
        webhook = (await create(kit, path)).need()
        (await kit.call("TestWebhook", {"webhook_id": webhook["webhook_id"]})).need()
        return webhook, (await kit.receiver.wait(path))[0]

    found: tuple[dict[str, Any], Event] = await kit.once("tested webhook", make)
    return found


_RECEIVES = ("receive",)


@section.check("A webhook delivery is POST with JSON.", needs=_RECEIVES)
async def is_post(kit: Kit) -> None:
    _, event = await _told(kit)
    if event.verb != "POST" or not event.headers.get("content-type", "").startswith("application/json"):
        raise ViolationError(f"it is {event.verb} with {event.headers.get('content-type')!r}")


@section.check("An event's body has its members, of their types.", needs=_RECEIVES)
async def body(kit: Kit) -> None:
    receipt, event = await _told(kit)
    answer = await kit.call("GetJob", {"job_id": receipt["job_id"]})
    expect_shape(answer, event.said, _BODY, "the event")


@section.check("An event says the job, its status, what succeeded and what failed.", needs=_RECEIVES)
async def said(kit: Kit) -> None:
    receipt, event = await _told(kit)
    names = ("event", "job_id", "status", "items_succeeded", "items_failed", "metadata")
    told = tuple(event.said[name] for name in names)
    wanted = ("job.succeeded", receipt["job_id"], "succeeded", 1, 1, {"order": 7})
    if told != wanted:
        raise ViolationError(f"it says {told}, not {wanted}")


@section.check("results_url and link_to_results have one value, under CAMSERVE_PUBLIC_URL.", needs=_RECEIVES)
async def links(kit: Kit) -> None:
    receipt, event = await _told(kit)
    wanted = f"{kit.options.links}/v1/jobs/{receipt['job_id']}/results"
    told = event.said["results_url"], event.said["link_to_results"]
    if told != (wanted, wanted):
        raise ViolationError(f"they are {told}, not {wanted}")


@section.check("Events carry no image data.", needs=_RECEIVES)
async def no_data(kit: Kit) -> None:
    _, event = await _told(kit)
    if any(word in event.body for word in (b"classes", b"heatmap", b"data_b64")):
        raise ViolationError("the event carries results")


@section.check("X-Timestamp is unix seconds, of now.", needs=_RECEIVES)
async def timestamp(kit: Kit) -> None:
    _, event = await _told(kit)
    value = event.headers.get("x-timestamp", "")
    if not value.isdigit() or abs(int(value) - time.time()) > _OLD_S:
        raise ViolationError(f"X-Timestamp is {value!r}, of which receivers refuse what is older than {_OLD_S} s")


@section.check("X-Event-Id matches the pattern of ids.", needs=_RECEIVES)
async def event_id(kit: Kit) -> None:
    _, event = await _told(kit)
    if not ID.fullmatch(event.headers.get("x-event-id", "")):
        raise ViolationError(f"X-Event-Id is {event.headers.get('x-event-id')!r}")


@section.check("A callback_url is signed with the tenant's callback secret.", needs=_RECEIVES)
async def callback(kit: Kit) -> None:
    _, event = await _told(kit)
    _expect_ours(event, (await kit.call("GetCallbackSecret")).need()["secret"])


@section.check("POST …:test answers 202.", ways=BOTH, needs=_RECEIVES)
async def test_status(kit: Kit) -> None:
    webhook = (await create(kit, _path())).need()
    (await kit.call("TestWebhook", {"webhook_id": webhook["webhook_id"]})).expect_status(202)


@section.check("X-Signature is the HMAC-SHA256 of id, timestamp and body under the webhook's secret.", needs=_RECEIVES)
async def signature(kit: Kit) -> None:
    webhook, event = await _tested(kit)
    _expect_ours(event, webhook["secret"])


@section.check("The Standard Webhooks headers verify with the same secret.", needs=_RECEIVES)
async def standard(kit: Kit) -> None:
    webhook, event = await _tested(kit)
    signed = (
        f"{event.headers.get('webhook-id', '')}.{event.headers.get('webhook-timestamp', '')}.".encode() + event.body
    )
    wanted = "v1," + base64.b64encode(_signature(webhook["secret"], signed)).decode()
    if wanted not in event.headers.get("webhook-signature", "").split(" "):
        raise ViolationError("webhook-signature does not verify")


async def _delivery(kit: Kit, webhook: dict[str, Any], tried: int = 1) -> tuple[Answer, dict[str, Any]]:
    """Waits until the newest delivery to a webhook has been tried so often, and returns it."""
    while True:
        answer = await kit.call("ListDeliveries", {"webhook_id": webhook["webhook_id"]})
        found = answer.need()["deliveries"]
        if found and found[0]["attempts"] >= tried and (found[0].get("last_status") or found[0]["status"] != "pending"):
            return answer, found[0]
        await asyncio.sleep(0.1)


@section.check("Delivery has its members, of their types.", ways=BOTH, needs=_RECEIVES)
async def delivery(kit: Kit) -> None:
    webhook, _ = await _tested(kit)
    answer, _ = await _delivery(kit, webhook)
    expect_shape(answer, answer.body, {"deliveries": [DELIVERY], "page": PAGE})


@section.check("2xx is success.", ways=BOTH, needs=_RECEIVES)
async def success(kit: Kit) -> None:
    webhook, _ = await _tested(kit)
    answer, found = await _delivery(kit, webhook)
    answer.expect_equal("status and last_status", (found["status"], found.get("last_status")), ("delivered", 204))


@section.check("The delivery's event_id is X-Event-Id.", ways=BOTH, needs=_RECEIVES)
async def delivery_id(kit: Kit) -> None:
    webhook, event = await _tested(kit)
    answer, found = await _delivery(kit, webhook)
    answer.expect_equal("event_id", found["event_id"], event.headers.get("x-event-id"))


async def _answered(kit: Kit, status: int, headers: dict[str, str]) -> tuple[Answer, dict[str, Any], str]:
    """Returns the listing and the delivery to a receiver that answered so, and the webhook's id."""
    path = _path()
    kit.receiver.answers[path] = (status, headers)
    webhook = (await create(kit, path)).need()
    (await kit.call("TestWebhook", {"webhook_id": webhook["webhook_id"]})).need()
    answer, found = await _delivery(kit, webhook)
    return answer, found, str(webhook["webhook_id"])


@section.check("A redirect is a failure and never followed.", needs=_RECEIVES)
async def redirect(kit: Kit) -> None:
    target = _path()
    answer, found, _ = await _answered(kit, 302, {"location": kit.receiver.url + target})
    answer.expect_equal("status and last_status", (found["status"], found.get("last_status")), ("pending", 302))
    answer.expect(not kit.receiver.at(target), "the redirect was followed")


@section.check("410 disables the webhook.", needs=_RECEIVES)
async def disabled(kit: Kit) -> None:
    _, _, webhook_id = await _answered(kit, 410, {})
    for _ in range(_LOOKS):
        answer = await kit.call("GetWebhook", {"webhook_id": webhook_id})
        if "disabled_at" in answer.need():
            return
        await asyncio.sleep(_LOOK_PAUSE_S)
    answer.expect("disabled_at" in answer.body, "the webhook has no disabled_at after its receiver answered 410")


@section.check("503 with Retry-After is honoured.", needs=_RECEIVES)
async def retry_after(kit: Kit) -> None:
    began = datetime.now(UTC)
    answer, found, _ = await _answered(kit, 503, {"retry-after": str(_PAUSE_S)})
    next_at = found.get("next_attempt_at", "")
    answer.expect(next_at, "there is no next_attempt_at")
    # The clocks of the kit and the deployment may differ by a minute.
    least = began + timedelta(seconds=_PAUSE_S - 60)
    answer.expect(moment(next_at) >= least, f"the next attempt is at {next_at}")


@section.check("While a secret rotates there are two signatures, of the old and the new one.", needs=_RECEIVES)
async def two_signatures(kit: Kit) -> None:
    path = _path()
    webhook = (await create(kit, path)).need()
    named = {"webhook_id": webhook["webhook_id"]}
    newer = (await kit.call("RotateWebhookSecret", named)).need()
    (await kit.call("TestWebhook", named)).need()
    event = (await kit.receiver.wait(path))[0]
    for each in (webhook, newer):
        _expect_ours(event, each["secret"])


async def _again(kit: Kit) -> tuple[Answer, list[Event]]:
    """Returns the answer to a redelivery and the event's two attempts, which checks share."""

    async def make() -> tuple[Answer, list[Event]]:
        path = _path()
        webhook = (await create(kit, path)).need()
        named = {"webhook_id": webhook["webhook_id"]}
        event_id = (await kit.call("TestWebhook", named)).need()["event_id"]
        await kit.receiver.wait(path)
        await _delivery(kit, webhook)
        answer = await kit.call("Redeliver", {**named, "event_id": event_id})
        answer.need()
        return answer, await kit.receiver.wait(path, 2)

    found: tuple[Answer, list[Event]] = await kit.once("redelivered", make)
    return found


@section.check("POST …:redeliver answers 202.", ways=BOTH, needs=_RECEIVES)
async def redelivered(kit: Kit) -> None:
    answer, _ = await _again(kit)
    answer.expect_status(202)


@section.check("The event id is the same on every attempt.", needs=_RECEIVES)
async def same_id(kit: Kit) -> None:
    _, events = await _again(kit)
    told = {event.headers.get("x-event-id") for event in events}
    if len(told) != 1:
        raise ViolationError(f"two attempts have the ids {told}")


@section.check("Both attempts carry the same body.", needs=_RECEIVES)
async def same_body(kit: Kit) -> None:
    _, events = await _again(kit)
    if len({hashlib.sha256(event.body).digest() for event in events}) != 1:
        raise ViolationError("two attempts have other bodies")
