"""Section 3: everything a tenant makes is visible to that tenant only."""

from __future__ import annotations

from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.shapes import ID

section = Section("tenancy", "3. Tenancy")

_UNKNOWN_EVENT = "evt_" + "0" * 22
_OWN_HEADERS = {"request-id", "date", "content-length"}


def _seen(answer: Answer) -> tuple[object, ...]:
    """What a caller sees of a refusal, but for what is each call's own."""
    error = {name: value for name, value in answer.error.items() if name != "request_id"}
    headers = {
        name for name in answer.headers if name not in _OWN_HEADERS and not name.startswith(("x-ratelimit", "x-envoy"))
    }
    return answer.status, sorted(error.items(), key=str), answer.message, sorted(headers)


async def _made(kit: Kit, member: str) -> str:
    if member == "storage_id":
        return str((await kit.upload())["storage_id"])
    if member == "job_id":
        return str(await finished_job(kit))
    return str((await kit.once("webhook", lambda: _webhook(kit)))["webhook_id"])


async def finished_job(kit: Kit) -> str:
    """Returns a job of two inputs that has ended, which checks share."""

    async def make() -> str:
        one = {"image": image("star.png"), "grad_cam": {"enabled": True}}
        created = await kit.create_job([{"id": "a", **one}, {"id": "b", **one}])
        job_id = str(created.need()["job_id"])
        await kit.ended(job_id)
        return job_id

    return str(await kit.once("finished job", make))


async def _webhook(kit: Kit) -> Any:
    return (await kit.call("CreateWebhook", {"url": webhook_url(kit), "events": ["job.expired"]})).need()


def webhook_url(kit: Kit, path: str = "/quiet") -> str:
    """Returns a place for events: the receiver's, or one to which nothing is ever sent, for want of events."""
    receiver = kit.shared.receiver
    return receiver.url + path if receiver else "https://example.com/camserve-conformance" + path


def _isolated(operation: str, member: str, what: str, **others: str) -> None:
    async def is_isolated(kit: Kit) -> None:
        other = kit.options.other_token
        made = await _made(kit, member)
        if not ID.fullmatch(made):
            raise BlockedError("the id does not match the pattern of ids, so that no unknown one is like it")
        prefix, _, rest = made.partition("_")
        named = await kit.call(operation, {member: made, **others}, token=other)
        unknown = await kit.call(operation, {member: f"{prefix}_{'0' * len(rest)}", **others}, token=other)
        if unknown.ok:
            raise BlockedError(f"{operation} knows an id that never was")
        named.expect_equal("another tenant's answer", _seen(named), _seen(unknown))

    name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in operation).strip("_")
    sentence = f"{what} of another tenant answers {operation} exactly like an unknown one."
    section.add(name, sentence, is_isolated, ways=BOTH, needs=("other_token",))


for _operation in ("GetJob", "ListJobResults", "WatchJob", "CancelJob"):
    _isolated(_operation, "job_id", "A job")
for _operation in ("GetUpload", "DeleteUpload"):
    _isolated(_operation, "storage_id", "An upload")
for _operation in ("GetWebhook", "DeleteWebhook", "TestWebhook", "RotateWebhookSecret", "ListDeliveries"):
    _isolated(_operation, "webhook_id", "A webhook")
_isolated("Redeliver", "webhook_id", "A webhook", event_id=_UNKNOWN_EVENT)


@section.check("Jobs of another tenant are not listed.", ways=BOTH, needs=("other_token",))
async def list_jobs(kit: Kit) -> None:
    job_id = await finished_job(kit)
    answer = await kit.call("ListJobs", {"limit": 200}, token=kit.options.other_token)
    listed = {job["job_id"] for job in answer.need()["jobs"]}
    answer.expect(job_id not in listed, "a job of another tenant is listed")


@section.check("Webhooks of another tenant are not listed.", ways=BOTH, needs=("other_token",))
async def list_webhooks(kit: Kit) -> None:
    webhook_id = await _made(kit, "webhook_id")
    answer = await kit.call("ListWebhooks", token=kit.options.other_token)
    listed = {webhook["webhook_id"] for webhook in answer.need()["webhooks"]}
    answer.expect(webhook_id not in listed, "a webhook of another tenant is listed")


@section.check("An image of another tenant is upload.not_found.", ways=BOTH, needs=("other_token",))
async def image_of_another(kit: Kit) -> None:
    named = {"storage_id": (await kit.upload())["storage_id"]}
    message = {"model": await kit.model(), "image": named}
    answer = await kit.call("Infer", message, token=kit.options.other_token)
    answer.expect_equal("the error's code", answer.code, "upload.not_found")


@section.check("A cursor of another tenant is cursor.invalid.", ways=BOTH, needs=("other_token",))
async def cursor_of_another(kit: Kit) -> None:
    for _ in range(2):
        (await kit.create_job([{"id": "a", "image": image("star.png")}])).need()
    page = (await kit.call("ListJobs", {"limit": 1})).need()["page"]
    answer = await kit.call("ListJobs", {"limit": 1, "cursor": page["next_cursor"]}, token=kit.options.other_token)
    answer.expect_equal("the error's code", answer.code, "cursor.invalid")


@section.check("Callback secrets are the tenant's own.", ways=BOTH, needs=("other_token",))
async def callback_secret(kit: Kit) -> None:
    own = (await kit.call("GetCallbackSecret")).need()["secret"]
    answer = await kit.call("GetCallbackSecret", token=kit.options.other_token)
    answer.expect(answer.need()["secret"] != own, "two tenants have one callback secret")
