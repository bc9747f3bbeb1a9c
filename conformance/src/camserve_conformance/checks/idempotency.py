"""Section 5: idempotency keys."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, GRPC, REST, Section
from camserve_conformance.checks.tenancy import webhook_url
from camserve_conformance.kit import Kit, image
from camserve_conformance.pictures import picture

section = Section("idempotency", "5. Idempotency")

_LONGEST = 255


def _key() -> str:
    return f"conformance-{uuid4()}"


async def _job(kit: Kit, key: str, name: str = "a") -> Answer:
    return await kit.create_job([{"id": name, "image": image("star.png")}], key=key)


async def _infer(kit: Kit, key: str, top_k: int = 5, name: str = "star.png") -> Answer:
    message = {"model": await kit.model(), "image": image(name), "classify": {"top_k": top_k}}
    return await kit.call("Infer", message, key=key)


async def _twice(kit: Kit) -> tuple[Answer, Answer]:
    """Returns the answers to one job that was asked for twice under one key, which checks share."""

    async def make() -> tuple[Answer, Answer]:
        key = _key()
        first = await _job(kit, key)
        first.need()
        return first, await _job(kit, key)

    found: tuple[Answer, Answer] = await kit.once("job twice", make)
    return found


def _replayed(answer: Answer) -> str | None:
    return answer.headers.get("idempotency-replayed")


@section.check("The same request under the same key has the first status again.", ways=BOTH)
async def same_status(kit: Kit) -> None:
    first, second = await _twice(kit)
    second.expect_equal("the status", second.status, first.status)


@section.check("The same request under the same key has the first body again.", ways=BOTH)
async def same_body(kit: Kit) -> None:
    first, second = await _twice(kit)
    second.expect_equal("the body", second.body, first.body)


@section.check("A replay says Idempotency-Replayed: true.", ways=BOTH)
async def replayed(kit: Kit) -> None:
    _, second = await _twice(kit)
    second.expect_equal("Idempotency-Replayed", _replayed(second), "true")


@section.check("A replay has the first headers again, such as Location.")
async def same_headers(kit: Kit) -> None:
    first, second = await _twice(kit)
    second.expect_equal("Location", second.headers.get("location"), first.headers.get("location"))


@section.check("A replay's Request-Id is the new call's.", ways=BOTH)
async def new_request_id(kit: Kit) -> None:
    first, second = await _twice(kit)
    second.expect(second.request_id != first.request_id, "two calls have one Request-Id")


@section.check("A replay's body keeps its first request_id.", ways=BOTH)
async def first_request_id(kit: Kit) -> None:
    first, second = await _twice(kit)
    second.expect_equal("request_id", second.need()["request_id"], first.request_id)


@section.check("A job under a key is made once.", ways=BOTH)
async def made_once(kit: Kit) -> None:
    key = _key()
    answers = [await _job(kit, key) for _ in range(3)]
    made = {answer.need()["job_id"] for answer in answers}
    answers[-1].expect_equal("the number of jobs", len(made), 1)


@section.check("An answer of Infer is replayed, with the first model version.", ways=BOTH)
async def infer(kit: Kit) -> None:
    key = _key()
    first, second = await _infer(kit, key), await _infer(kit, key)
    first.need()
    second.expect_equal("Idempotency-Replayed", _replayed(second), "true")
    second.expect_equal("model_version", second.need()["model_version"], first.body["model_version"])


@section.check("An upload is replayed.", ways=BOTH)
async def upload(kit: Kit) -> None:
    key = _key()
    first = await kit.send("UploadImage", picture("star.png"), "image/png", key=key)
    second = await kit.send("UploadImage", picture("star.png"), "image/png", key=key)
    first.need()
    second.expect_equal("storage_id", second.need()["storage_id"], first.body["storage_id"])


async def _expect_replay(kit: Kit, operation: str, fields: dict[str, Any], member: str) -> None:
    """Calls twice under one key: a member that is new with each call must be the first one's again."""
    key = _key()
    first = (await kit.call(operation, fields, key=key)).need()
    second = await kit.call(operation, fields, key=key)
    second.expect_equal(member, second.need()[member], first[member])


async def _new_webhook(kit: Kit) -> dict[str, Any]:
    made = await kit.call("CreateWebhook", {"url": webhook_url(kit), "events": ["job.expired"]})
    return {"webhook_id": made.need()["webhook_id"]}


@section.check("A presigned upload under a key is one upload.", ways=BOTH)
async def presign(kit: Kit) -> None:
    await _expect_replay(kit, "PresignUpload", {"media_type": "image/png", "size_bytes": 1000}, "storage_id")


@section.check("A webhook under a key is made once.", ways=BOTH)
async def webhook(kit: Kit) -> None:
    await _expect_replay(kit, "CreateWebhook", {"url": webhook_url(kit), "events": ["job.expired"]}, "webhook_id")


@section.check("…:rotate under a key makes one secret.", ways=BOTH)
async def rotation(kit: Kit) -> None:
    await _expect_replay(kit, "RotateWebhookSecret", await _new_webhook(kit), "secret")


@section.check("…:test under a key makes one event.", ways=BOTH, needs=("receive",))
async def test_event(kit: Kit) -> None:
    await _expect_replay(kit, "TestWebhook", await _new_webhook(kit), "event_id")


@section.check("Links in a replay are signed afresh, and work.", ways=BOTH)
async def fresh_links(kit: Kit) -> None:
    key = _key()
    message = {
        "model": await kit.model(),
        "image": image("star.png"),
        "grad_cam": {"enabled": True},
        "response": {"heatmap": "url"},
    }
    (await kit.call("Infer", message, key=key)).need()
    second = await kit.call("Infer", message, key=key)
    opened = await kit.rest.request("GET", second.need()["heatmap"]["url"], token=None)
    opened.expect(opened.ok, f"the link in a replay answered {opened.status}")


@section.check("The same key with another request is 422 idempotency.key_reused.", ways=BOTH)
async def key_reused(kit: Kit) -> None:
    key = _key()
    (await _job(kit, key)).need()
    (await _job(kit, key, "b")).expect_refusal("idempotency.key_reused")


@section.check("The fingerprint covers the image: another image is another request.", ways=BOTH)
async def other_image(kit: Kit) -> None:
    key = _key()
    (await _infer(kit, key)).need()
    answer = await _infer(kit, key, name="baseline.jpg")
    answer.expect_equal("the error's code", answer.code, "idempotency.key_reused")


@section.check("Keys are of one operation: another may use the same.", ways=BOTH)
async def other_operation(kit: Kit) -> None:
    key = _key()
    (await _job(kit, key)).need()
    answer = await kit.send("UploadImage", picture("star.png"), "image/png", key=key)
    answer.expect(answer.ok, f"another operation under the same key answered {answer.status} {answer.code}")


@section.check("Keys are a tenant's: another may use the same.", ways=BOTH, needs=("other_token",))
async def other_tenant(kit: Kit) -> None:
    key = _key()
    link = {"media_type": "image/png", "size_bytes": 1000}
    first = (await kit.call("PresignUpload", link, key=key)).need()
    answer = await kit.call("PresignUpload", link, key=key, token=kit.options.other_token)
    made = answer.need()["storage_id"]
    answer.expect(made != first["storage_id"], "another tenant got the first one's answer")


@section.check("A new multipart boundary and another order of parts are the same request.")
async def other_boundary(kit: Kit) -> None:
    key = {"idempotency-key": _key()}
    file = ("image", ("star.png", picture("star.png"), "image/png"))
    model: tuple[str, Any] = ("model", (None, await kit.model()))
    (await kit.rest.request("POST", "/v1/infer", headers=key, files=[file, model])).need()
    second = await kit.rest.request("POST", "/v1/infer", headers=key, files=[model, file])
    second.expect_equal("Idempotency-Replayed", _replayed(second), "true")


@section.check("Another order of a JSON body's keys is the same request.")
async def other_order(kit: Kit) -> None:
    headers = {"idempotency-key": _key(), "content-type": "application/json"}
    message = {"model": await kit.model(), "image": image("star.png"), "classify": {"top_k": 2}}
    turned = dict(reversed(message.items()))
    (await kit.rest.request("POST", "/v1/infer", headers=headers, content=json.dumps(message).encode())).need()
    answer = await kit.rest.request("POST", "/v1/infer", headers=headers, content=json.dumps(turned).encode())
    answer.expect_equal("Idempotency-Replayed", _replayed(answer), "true")


@section.check("Infer and InferUpload are one operation.", ways=BOTH)
async def one_operation(kit: Kit) -> None:
    key = _key()
    (await _infer(kit, key)).need()
    fields = {"model": await kit.model(), "classify": {"top_k": 5}}
    answer = await kit.send("InferUpload", picture("star.png"), "image/png", fields, key=key)
    answer.expect_equal("Idempotency-Replayed", _replayed(answer), "true")


@section.check("A key is one and the same over REST and gRPC.", ways=(GRPC,))
async def both_ways(kit: Kit) -> None:
    key = _key()
    first = await _job(kit.by(REST), key)
    second = await _job(kit, key)
    second.expect_equal("job_id", second.need()["job_id"], first.need()["job_id"])


@section.check("A replay is not charged.", ways=BOTH, alone=True)
async def not_charged(kit: Kit) -> None:
    key = _key()
    (await _infer(kit, key)).need()
    before = (await kit.call("GetLimits")).need()["images_per_day"]["used"]
    (await _infer(kit, key)).need()
    answer = await kit.call("GetLimits")
    answer.expect_equal("images_per_day.used", answer.need()["images_per_day"]["used"], before)


@section.check("A refusal by validation is not stored: the corrected request passes under the same key.", ways=BOTH)
async def refusal_not_stored(kit: Kit) -> None:
    key = _key()
    await _infer(kit, key, top_k=1001)
    answer = await _infer(kit, key, top_k=3)
    answer.expect(answer.ok, f"the corrected request answered {answer.status} {answer.code}")


@section.check("422 image.* is stored.", ways=BOTH)
async def broken_image_stored(kit: Kit) -> None:
    key = _key()
    await _infer(kit, key, name="truncated.png")
    answer = await _infer(kit, key, name="truncated.png")
    answer.expect_equal("Idempotency-Replayed", _replayed(answer), "true")


def _malformed(name: str, key: str, what: str) -> None:
    async def is_refused(kit: Kit) -> None:
        answer = await _job(kit, key)
        answer.expect_equal("the error's code", answer.code, "idempotency.key_invalid")

    section.add(name, f"A key {what} is 400 idempotency.key_invalid.", is_refused, ways=BOTH)


_malformed("key_too_long", "x" * (_LONGEST + 1), "of 256 characters")
_malformed("key_with_blank", "a b", "that is not visible ASCII, with a blank in it,")


@section.check("A key may have 255 characters.", ways=BOTH)
async def longest_key(kit: Kit) -> None:
    answer = await _job(kit, _key().ljust(_LONGEST, "x"))
    answer.expect(answer.ok, f"a key of 255 characters answered {answer.status} {answer.code}")


@section.check(
    "Two calls at once under one key run once: the other is 409 idempotency.in_progress, or a replay.", ways=BOTH
)
async def at_once(kit: Kit) -> None:
    key = _key()
    answers = await asyncio.gather(_job(kit, key), _job(kit, key))
    made = {answer.body["job_id"] for answer in answers if answer.ok}
    answers[0].expect_equal("the number of jobs", len(made), 1)
    for answer in answers:
        if not answer.ok:
            answer.expect_refusal("idempotency.in_progress")
            answer.expect(answer.headers.get("retry-after"), "there is no Retry-After")


@section.check("On GET a key has no effect.", ways=BOTH)
async def on_get(kit: Kit) -> None:
    key = _key()
    answers = [await kit.call("ListJobs", {"limit": 1}, key=key) for _ in range(2)]
    answers[0].need()
    answers[1].expect(answers[1].ok, f"a key on GET answered {answers[1].status} {answers[1].code}")
    answers[1].expect(_replayed(answers[1]) != "true", "a GET was replayed")


@section.check("On DELETE a key has no effect.", ways=BOTH)
async def on_delete(kit: Kit) -> None:
    key = _key()
    for _ in range(2):
        made = (await kit.send("UploadImage", picture("star.png"), "image/png")).need()
        answer = await kit.call("DeleteUpload", {"storage_id": made["storage_id"]}, key=key)
        answer.expect(answer.ok, f"a key on DELETE answered {answer.status} {answer.code}")


@section.check("IssueToken ignores a key.", needs=("client",))
async def on_token(kit: Kit) -> None:
    form = {
        "grant_type": "client_credentials",
        "client_id": kit.options.client_id,
        "client_secret": kit.options.client_secret,
    }
    headers = {"idempotency-key": _key()}
    answers = [
        await kit.rest.request("POST", "/oauth2/token", token=None, headers=headers, data=form) for _ in range(2)
    ]
    answers[1].expect(answers[1].ok, f"a key at the token endpoint answered {answers[1].status}")
    answers[1].expect(_replayed(answers[1]) != "true", "a token was replayed")
