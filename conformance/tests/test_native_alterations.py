"""Over gRPC too the kit can fail: one thing altered in front of the real port makes the check of that sentence fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
from conformance.tests.conftest import Deployment
from conformance.tests.native_proxy import NativeExchange, faulty_native_proxy
from conformance.tests.proxy import faulty_proxy

from camserve_conformance.outcomes import State
from camserve_conformance.report import as_text
from camserve_conformance.runner import run

pytestmark = pytest.mark.timeout(600)

Alter = Callable[[NativeExchange], None]


@dataclass(frozen=True)
class NativeAlteration:
    """What is altered, and the checks that it makes fail, of those in the same sections over gRPC."""

    what: str
    hits: frozenset[str]
    alter: Alter


def _alteration(what: str, hits: str, operation: str, change: Alter) -> NativeAlteration:
    def alter(exchange: NativeExchange) -> None:
        if exchange.operation == operation:
            change(exchange)

    return NativeAlteration(what, frozenset(f"{each}@grpc" for each in hits.split()), alter)


def _edit(name: str, change: Callable[[Any], None]) -> Alter:
    return lambda exchange: exchange.edit(name, change)


def _error(change: Callable[[Any], None]) -> Alter:
    return lambda exchange: exchange.edit_error(change)


def _without(name: str) -> Alter:
    def change(exchange: NativeExchange) -> None:
        exchange.initial.pop(name, None)
        exchange.trailing.pop(name, None)

    return change


def _refused(code: grpc.StatusCode, when: Callable[[NativeExchange], Any]) -> Alter:
    def change(exchange: NativeExchange) -> None:
        if when(exchange):
            exchange.code, exchange.messages = code, []

    return change


def _answered(exchange: NativeExchange) -> None:
    exchange.code, exchange.messages = None, [b""]


def _only(code: grpc.StatusCode, change: Alter) -> Alter:
    return lambda exchange: change(exchange) if exchange.code is code else None


def _lost(exchange: NativeExchange) -> None:
    exchange.trailing.pop("grpc-status-details-bin", None)


def _no_object(status: Any) -> None:
    del status.details[0]


def _no_info(status: Any) -> None:
    for place in reversed(range(len(status.details))):
        if status.details[place].type_url.endswith("ErrorInfo"):
            del status.details[place]


def _no_retry(status: Any) -> None:
    for place in reversed(range(len(status.details))):
        if status.details[place].type_url.endswith("RetryInfo"):
            del status.details[place]


_NOT_FOUND = grpc.StatusCode.NOT_FOUND
ALTERATIONS = [
    _alteration(
        "models without request-id",
        "headers.request_id",
        "ListModels",
        lambda exchange: None if exchange.code else _without("request-id")(exchange),
    ),
    _alteration(
        "jobs without idempotency-replayed", "headers.replayed_job", "CreateJob", _without("idempotency-replayed")
    ),
    _alteration("batches without request-id", "headers.request_id_of_batch", "InferBatch", _without("request-id")),
    _alteration("uploads without a limit", "headers.rate_of_upload", "UploadImage", _without("x-ratelimit-limit")),
    _alteration(
        "a list for x-ratelimit-limit",
        "headers.x_ratelimit_limit",
        "ListJobs",
        lambda exchange: exchange.initial.update({"x-ratelimit-limit": "9, 9;w=1"}),
    ),
    _alteration(
        "routed without a job_id",
        "headers.prefer_native",
        "Infer",
        _edit("InferResponse", lambda said: said.ClearField("job_id")),
    ),
    _alteration(
        "sizes are not needed", "edges.size_required", "UploadImage", _only(grpc.StatusCode.INVALID_ARGUMENT, _lost)
    ),
    _alteration(
        "the health service says no",
        "edges.grpc_health",
        "Check",
        lambda exchange: setattr(exchange, "messages", [b"\x08\x02"]),
    ),
    _alteration(
        "no reflection",
        "edges.reflection",
        "ServerReflectionInfo",
        _refused(grpc.StatusCode.UNIMPLEMENTED, lambda exchange: True),
    ),
    _alteration("administration for everybody", "edges.no_admin", "ListTenants", _answered),
    _alteration(
        "NOT_FOUND becomes UNKNOWN",
        "edges.malformed_job_id",
        "GetJob",
        _only(_NOT_FOUND, lambda exchange: setattr(exchange, "code", grpc.StatusCode.UNKNOWN)),
    ),
    _alteration(
        "no error object",
        "errors.error_object errors.error_status errors.error_info errors.message",
        "GetJob",
        _only(_NOT_FOUND, lambda exchange: exchange.edit_detail(_no_object)),
    ),
    _alteration(
        "no error info",
        "errors.error_info",
        "GetJob",
        _only(_NOT_FOUND, lambda exchange: exchange.edit_detail(_no_info)),
    ),
    _alteration(
        "another status in the error object",
        "errors.error_status",
        "GetJob",
        _only(_NOT_FOUND, _error(lambda error: setattr(error, "status", 400))),
    ),
    _alteration(
        "no message in the error object",
        "errors.message",
        "GetJob",
        _only(_NOT_FOUND, _error(lambda error: error.ClearField("message"))),
    ),
    _alteration(
        "no retry info",
        "errors.retry_info",
        "GetLimits",
        _only(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda exchange: exchange.edit_detail(_no_retry)),
    ),
    _alteration(
        "another code of models",
        "codes.model_not_told",
        "GetModel",
        _only(_NOT_FOUND, _error(lambda error: setattr(error, "code", "other"))),
    ),
    _alteration(
        "an upload in pieces is another",
        "uploads.in_pieces",
        "UploadImage",
        lambda exchange: (
            exchange.edit("Upload", lambda said: setattr(said, "size_bytes", 1)) if len(exchange.asked) > 1 else None
        ),
    ),
    _alteration(
        "short uploads are stored",
        "uploads.truncated",
        "UploadImage",
        _only(grpc.StatusCode.INVALID_ARGUMENT, _answered),
    ),
    _alteration(
        "downloads are cut",
        "objects.download",
        "Download",
        lambda exchange: setattr(exchange, "messages", exchange.messages[:0]),
    ),
    _alteration(
        "pieces are lost",
        "infer.upload_in_pieces",
        "InferUpload",
        lambda exchange: (
            exchange.edit("InferResponse", lambda said: setattr(said.image, "sha256", "0" * 64))
            if len(exchange.asked) > 1
            else None
        ),
    ),
    _alteration(
        "keys are not of both ways",
        "idempotency.both_ways",
        "CreateJob",
        lambda exchange: (
            exchange.asked
            and exchange.initial.get("idempotency-replayed") == "true"
            and exchange.edit("CreateJobResponse", lambda said: setattr(said, "job_id", "job_" + "7" * 20))
        ),
    ),
]


@pytest.mark.parametrize("alteration", ALTERATIONS, ids=lambda each: each.what)
async def test_an_alteration_over_grpc_makes_its_check_fail(
    alteration: NativeAlteration, deployment: Deployment
) -> None:
    async with (
        faulty_native_proxy(deployment.stack.grpc_target, alteration.alter) as target,
        faulty_proxy(deployment.proxy_port, deployment.stack.edge_url),
    ):
        report = await run(replace(deployment.options, grpc=target, only=tuple(alteration.hits)))
    violated = {each.check.name for each in report.outcomes if each.state is State.VIOLATED}
    assert violated == alteration.hits, as_text(report)
