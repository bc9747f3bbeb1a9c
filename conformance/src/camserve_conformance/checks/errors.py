"""Section 6: what every error looks like, whoever makes it."""

from __future__ import annotations

import json
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.catalogue import CATALOGUE
from camserve_conformance.check import GRPC, REST, Section
from camserve_conformance.checks.models import too_many
from camserve_conformance.kit import Kit
from camserve_conformance.shapes import ERROR, expect_shape

section = Section("errors", "6. Errors: their form")

_MOST_BYTES = 2048
_MARK = "camserveconformancemark"
_UNKNOWN = "job_" + "1" * 20
_JSON = {"content-type": "application/json"}


async def _of_server(kit: Kit) -> Answer:
    return await kit.rest.request("GET", f"/v1/jobs/{_UNKNOWN}")


async def _of_transcoder(kit: Kit) -> Answer:
    body = f'{{"model": {{"{_MARK}": '.encode()
    return await kit.rest.request("POST", "/v1/jobs", headers=_JSON, content=body)


async def _of_jwt(kit: Kit) -> Answer:
    return await kit.rest.request("GET", "/v1/jobs", token=f"{_MARK}.{_MARK}.{_MARK}")


async def _of_router(kit: Kit) -> Answer:
    return await kit.rest.request("GET", f"/v1/{_MARK}")


_MAKERS = {
    "server": ("the server", _of_server),
    "transcoder": ("the transcoder", _of_transcoder),
    "jwt": ("the JWT filter", _of_jwt),
    "router": ("the router", _of_router),
}


def _of(maker: str) -> None:
    who, make = _MAKERS[maker]

    async def shape(kit: Kit) -> None:
        answer = await make(kit)
        expect_shape(answer, answer.body, {"error": ERROR})

    async def media_type(kit: Kit) -> None:
        answer = await make(kit)
        answer.expect_equal("Content-Type", answer.headers.get("content-type"), "application/json")

    async def small(kit: Kit) -> None:
        answer = await make(kit)
        answer.expect(answer.content.isascii(), "the body is not ASCII")
        answer.expect(len(answer.content) < _MOST_BYTES, f"the body has {len(answer.content)} bytes")

    async def status(kit: Kit) -> None:
        answer = await make(kit)
        answer.expect_equal("error.status", answer.error.get("status"), answer.status)

    async def code(kit: Kit) -> None:
        answer = await make(kit)
        answer.expect(answer.code in CATALOGUE, f"the code {answer.code!r} is not in the table")
        answer.expect_equal("error.type", answer.error.get("type"), CATALOGUE[answer.code].type)

    section.add(f"{maker}_shape", f"An error of {who} is {{error: {{type, code, message, …}}}}.", shape)
    section.add(f"{maker}_media_type", f"An error of {who} is application/json.", media_type)
    section.add(f"{maker}_small", f"An error of {who} is ASCII, under 2 KB.", small)
    section.add(f"{maker}_status", f"An error of {who} says its HTTP status.", status)
    section.add(f"{maker}_code", f"An error of {who} has a code of the table, with its type.", code)


for _maker in _MAKERS:
    _of(_maker)


async def _no_echo(kit: Kit) -> None:
    for make in (_of_transcoder, _of_jwt, _of_router):
        answer = await make(kit)
        answer.expect(_MARK.encode() not in answer.content, "the error echoes what the caller sent")


section.add("no_echo", "An error never echoes the caller's bytes, URLs or tokens.", _no_echo)


@section.check("An error of validation does not echo a value.")
async def no_echoed_value(kit: Kit) -> None:
    answer = await kit.infer(grad_cam={"enabled": True, "colormap": _MARK})
    answer.expect(_MARK.encode() not in answer.content, "the error echoes the value")


@section.check("An answer that is no error has no member `error`.")
async def no_error(kit: Kit) -> None:
    answer = await kit.rest.request("GET", "/v1/limits")
    answer.expect("error" not in answer.need(), "a success has a member `error`")


async def _native(kit: Kit) -> Answer:
    return await kit.native.call("GetJob", {"job_id": _UNKNOWN})


def _detail(answer: Answer, name: str) -> dict[str, Any]:
    found = [each for each in answer.details if each["@type"].endswith(name)]
    answer.expect(found, f"there is no {name} among the details")
    return found[0]


@section.check("Over gRPC the details of google.rpc.Status hold camserve.v1.ErrorObject.", ways=(GRPC,))
async def error_object(kit: Kit) -> None:
    answer = await _native(kit)
    expect_shape(answer, _detail(answer, "camserve.v1.ErrorObject"), ERROR, "ErrorObject")


@section.check("Over gRPC they hold google.rpc.ErrorInfo: the reason is the code, the domain camserve.", ways=(GRPC,))
async def error_info(kit: Kit) -> None:
    answer = await _native(kit)
    info = _detail(answer, "google.rpc.ErrorInfo")
    answer.expect_equal("reason and domain", (info.get("reason"), info.get("domain")), (answer.code, "camserve"))


@section.check("Over gRPC ErrorObject says the HTTP status too.", ways=(GRPC,))
async def error_status(kit: Kit) -> None:
    answer = await _native(kit)
    status = _detail(answer, "camserve.v1.ErrorObject").get("status")
    answer.expect_equal("status", status, CATALOGUE["job.not_found"].status)


@section.check(
    "RetryInfo stands where trying again helps.", ways=(GRPC,), needs=("slow_token", "native_port"), alone=True
)
async def retry_info(kit: Kit) -> None:
    _detail(await too_many(kit), "google.rpc.RetryInfo")


@section.check("What the transcoder refuses on GET is param.invalid.")
async def transcoder_on_get(kit: Kit) -> None:
    answer = await kit.rest.request("GET", "/v1/jobs", params={"limit": "many"})
    answer.expect_refusal("param.invalid")


@section.check("What the transcoder refuses otherwise is json.malformed.")
async def transcoder_on_post(kit: Kit) -> None:
    body = json.dumps({"model": ["a list"]}).encode()
    answer = await kit.rest.request("POST", "/v1/jobs", headers=_JSON, content=body)
    answer.expect_refusal("json.malformed")


@section.check("The message is for people: it is there.", ways=(REST, GRPC))
async def message(kit: Kit) -> None:
    answer = await kit.call("GetJob", {"job_id": _UNKNOWN})
    answer.expect(answer.error.get("message"), "there is no message")
