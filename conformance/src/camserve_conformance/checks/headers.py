"""Section 2: headers, and over gRPC metadata of the same names."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, GRPC, REST, Section
from camserve_conformance.checks.tenancy import webhook_url
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.pictures import picture

section = Section("headers", "2. Headers")

UNKNOWN_JOB = "job_" + "0" * 20
_MOST_RESET_S = 86400
_RATE = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
_HTTP_DATE = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")


def _expect_same_id(answer: Answer, in_body: object) -> None:
    answer.expect_equal("request_id in the body", in_body, answer.request_id)


@section.check("A success carries Request-Id.", ways=BOTH)
async def request_id(kit: Kit) -> None:
    answer = await kit.call("ListModels")
    answer.need()
    answer.expect(answer.request_id, "there is no Request-Id")


@section.check("An error of the service carries Request-Id.", ways=BOTH)
async def request_id_of_error(kit: Kit) -> None:
    answer = await kit.call("GetJob", {"job_id": UNKNOWN_JOB})
    answer.expect(answer.request_id, "there is no Request-Id")


@section.check("An error of the edge carries Request-Id.")
async def request_id_of_edge(kit: Kit) -> None:
    answer = await kit.rest.request("GET", "/v1/camserve-conformance")
    answer.expect(answer.request_id, "there is no Request-Id")


@section.check("A refusal for want of a token carries Request-Id.", ways=BOTH)
async def request_id_of_anonymous(kit: Kit) -> None:
    answer = await kit.call("ListModels", token=None)
    answer.expect(answer.request_id, "there is no Request-Id")


async def _method_not_allowed(kit: Kit) -> Answer:
    return await kit.rest.request("PUT", "/v1/jobs")


async def _media_unsupported(kit: Kit) -> Answer:
    return await kit.rest.request("POST", "/v1/jobs", headers={"content-type": "text/plain"}, content=b"{}")


async def _deleted(kit: Kit) -> Answer:
    made = await kit.send("UploadImage", picture("star.png"), "image/png")
    answer = await kit.call("DeleteUpload", {"storage_id": made.need()["storage_id"]})
    answer.need()
    return answer


async def _batch(kit: Kit) -> Answer:
    message = {"model": await kit.model(), "inputs": [{"id": "a", "image": image("star.png")}]}
    answer = await kit.call("InferBatch", message)
    answer.need()
    return answer


def _has_id(name: str, what: str, ask: Callable[[Kit], Awaitable[Answer]], ways: tuple[str, ...]) -> None:
    async def has_id(kit: Kit) -> None:
        answer = await ask(kit)
        answer.expect(answer.request_id, "there is no Request-Id")

    section.add(f"request_id_of_{name}", f"{what} carries Request-Id.", has_id, ways=ways)


_has_id("405", "A refusal of the verb (405)", _method_not_allowed, (REST,))
_has_id("415", "A refusal of the media type (415)", _media_unsupported, (REST,))
_has_id("204", "An answer without a body (204)", _deleted, BOTH)
_has_id("batch", "A stream of POST /v1/infer:batch", _batch, BOTH)


@section.check("Request-Id equals request_id in the body.", ways=BOTH)
async def request_id_in_body(kit: Kit) -> None:
    answer = await kit.infer(classify={"top_k": 2})
    _expect_same_id(answer, answer.need()["request_id"])


@section.check("Request-Id equals request_id in the body of an error.", ways=BOTH)
async def request_id_in_error(kit: Kit) -> None:
    answer = await kit.call("GetJob", {"job_id": UNKNOWN_JOB})
    _expect_same_id(answer, answer.error.get("request_id"))


@section.check("Request-Id is the service's own, whatever the caller sends.")
async def request_id_is_ours(kit: Kit) -> None:
    named = str(uuid4())
    answer = await kit.call("ListModels", headers={"request-id": named, "x-request-id": named})
    answer.need()
    answer.expect(answer.request_id != named, "the caller chose the Request-Id")


@section.check("Idempotency-Replayed is false on a job that is new.", ways=BOTH)
async def replayed_job(kit: Kit) -> None:
    answer = await kit.create_job([{"id": "a", "image": image("star.png")}], key=str(uuid4()))
    answer.need()
    answer.expect_equal("Idempotency-Replayed", answer.headers.get("idempotency-replayed"), "false")


@section.check("Idempotency-Replayed is false on an upload that is new.", ways=BOTH)
async def replayed_upload(kit: Kit) -> None:
    answer = await kit.send("UploadImage", picture("star.png"), "image/png", key=str(uuid4()))
    answer.need()
    answer.expect_equal("Idempotency-Replayed", answer.headers.get("idempotency-replayed"), "false")


@section.check("Idempotency-Replayed is there on creation without a key too.", ways=BOTH)
async def replayed_without_key(kit: Kit) -> None:
    answer = await kit.call("PresignUpload", {"media_type": "image/png", "size_bytes": 1000})
    answer.need()
    answer.expect_equal("Idempotency-Replayed", answer.headers.get("idempotency-replayed"), "false")


@section.check("Idempotency-Replayed is false on a webhook that is new.", ways=BOTH)
async def replayed_webhook(kit: Kit) -> None:
    answer = await kit.call("CreateWebhook", {"url": webhook_url(kit), "events": ["job.expired"]}, key=str(uuid4()))
    answer.need()
    answer.expect_equal("Idempotency-Replayed", answer.headers.get("idempotency-replayed"), "false")


def _expect_plain(answer: Answer, name: str) -> None:
    value = answer.headers.get(name.lower(), "")
    answer.expect(re.fullmatch(r"\d+", value), f"{name} is {value!r}, not a plain integer")


def _rate_header(name: str) -> None:
    async def is_plain(kit: Kit) -> None:
        answer = await kit.call("ListJobs", {"limit": 2})
        answer.need()
        _expect_plain(answer, name)

    section.add(
        name.lower().replace("-", "_"), f"Authenticated routes tell {name}, a plain integer.", is_plain, ways=BOTH
    )


for _name in _RATE:
    _rate_header(_name)


@section.check("An upload tells X-RateLimit-Limit, -Remaining and -Reset too.", ways=BOTH)
async def rate_of_upload(kit: Kit) -> None:
    answer = await kit.send("UploadImage", picture("star.png"), "image/png")
    answer.need()
    for name in _RATE:
        _expect_plain(answer, name)


@section.check("X-RateLimit-Remaining is what is left of X-RateLimit-Limit: never more.", ways=BOTH)
async def rate_remaining(kit: Kit) -> None:
    answer = await kit.call("ListJobs", {"limit": 2})
    answer.need()
    limit, remaining = (int(answer.headers[name.lower()]) for name in _RATE[:2])
    answer.expect(remaining <= limit, f"X-RateLimit-Remaining is {remaining}, of {limit}")


@section.check("X-RateLimit-Reset counts seconds from now.", ways=BOTH)
async def rate_reset(kit: Kit) -> None:
    answer = await kit.call("ListJobs", {"limit": 2})
    answer.need()
    reset_s = int(answer.headers["x-ratelimit-reset"])
    answer.expect(reset_s <= _MOST_RESET_S, f"X-RateLimit-Reset is {reset_s}, more than a day")


@section.check("An error of an authenticated route tells X-RateLimit-Remaining too.")
async def rate_of_error(kit: Kit) -> None:
    _expect_plain(await kit.call("GetJob", {"job_id": UNKNOWN_JOB}), "X-RateLimit-Remaining")


def _expect_challenge(answer: Answer) -> None:
    value = answer.headers.get("www-authenticate", "")
    answer.expect(value.startswith("Bearer"), f"WWW-Authenticate is {value!r}")


@section.check("401 carries WWW-Authenticate: Bearer.")
async def www_authenticate(kit: Kit) -> None:
    _expect_challenge(await kit.rest.request("GET", "/v1/jobs", token=None))


@section.check("401 for a token that is none carries WWW-Authenticate: Bearer too.")
async def www_authenticate_of_invalid(kit: Kit) -> None:
    _expect_challenge(await kit.rest.request("GET", "/v1/jobs", token="not.a.token"))


@section.check("401 for want of a scope carries WWW-Authenticate: Bearer too.", needs=("narrow_token",))
async def www_authenticate_of_scope(kit: Kit) -> None:
    _expect_challenge(await kit.rest.request("GET", "/v1/models", token=kit.options.narrow_token))


@section.check("Prefer: respond-async makes /v1/infer answer 202.", ways=BOTH)
async def prefer(kit: Kit) -> None:
    message = {"model": await kit.model(), "image": image("star.png")}
    answer = await kit.call("Infer", message, headers={"prefer": "respond-async"})
    answer.expect_status(202)


@section.check("Over gRPC a job_id that is present means routed to a job.", ways=(GRPC,))
async def prefer_native(kit: Kit) -> None:
    message = {"model": await kit.model(), "image": image("star.png")}
    answer = await kit.call("Infer", message, headers={"prefer": "respond-async"})
    answer.expect("job_id" in answer.need(), "there is no job_id")


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


async def _stream(data: bytes) -> AsyncIterator[bytes]:
    yield data


@section.check("Content-MD5 stands in for Content-Length on a raw body.")
async def md5_for_length(kit: Kit) -> None:
    data = picture("star.png")
    answer = await kit.rest.request(
        "POST",
        "/v1/uploads",
        headers={"content-type": "image/png", "content-md5": _md5(data)},
        content=_stream(data),
    )
    kit.note("UploadImage", answer)
    answer.expect(answer.ok, f"a stream with Content-MD5 answered {answer.status}")


@section.check("Content-MD5 is held against a raw body.")
async def md5_of_raw(kit: Kit) -> None:
    answer = await kit.send(
        "UploadImage", picture("star.png"), "image/png", headers={"content-md5": _md5(b"another image")}
    )
    answer.expect_equal("the error's code", answer.code, "image.md5_mismatch")


@section.check("Content-MD5 is held against a form.")
async def md5_of_form(kit: Kit) -> None:
    answer = await kit.rest.request(
        "POST",
        "/v1/uploads",
        headers={"content-md5": _md5(b"another image")},
        files={"image": picture("star.png")},
    )
    kit.note("UploadImage", answer)
    answer.expect_equal("the error's code", answer.code, "image.md5_mismatch")


@section.check("image.content_md5 is held against the image in a message.", ways=BOTH)
async def md5_in_message(kit: Kit) -> None:
    named = image("star.png") | {"content_md5": _md5(b"another image")}
    answer = await kit.call("Infer", {"model": await kit.model(), "image": named})
    answer.expect_equal("the error's code", answer.code, "image.md5_mismatch")


@section.check("Deprecation is @unixtime and Sunset an HTTP-date, where a route or a version has them.")
async def deprecation(kit: Kit) -> None:
    answer = await kit.infer()
    told = {name: answer.headers[name] for name in ("deprecation", "sunset") if name in answer.headers}
    if not told:
        raise SkippedError("the version `stable` of the model is not deprecated")
    answer.expect(re.fullmatch(r"@\d+", told.get("deprecation", "@0")), f"Deprecation is {told.get('deprecation')!r}")
    if "sunset" in told:
        answer.expect(_HTTP_DATE.fullmatch(told["sunset"]), f"Sunset is {told['sunset']!r}")
