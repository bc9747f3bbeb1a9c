"""Errors, however they are said."""

from __future__ import annotations

import pickle
import time
from email.utils import formatdate

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from camserve_client import CamserveError
from camserve_client.gen import errors_pb2
from camserve_client.refusals import of_grpc, of_http


def ended(code, details="said", **trailers):
    """A call that ended so, with metadata of these names."""
    metadata = grpc.aio.Metadata(*((name.replace("_", "-"), value) for name, value in trailers.items()))
    return of_grpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, details, None))


def test_an_error_survives_the_way_to_another_process():
    error = CamserveError("rate.exceeded", "Too many.", status=429, request_id="r", retry_after_s=2, details={"a": 1})
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, again.retry_after_s, again.details) == (str(error), 429, 2, {"a": 1})


@pytest.mark.parametrize(
    ("code", "trailers", "told"),
    [
        ("UNAVAILABLE", {}, ("connection.failed", 503, None)),
        ("UNAVAILABLE", {"retry_after": "3"}, ("service.overloaded", 503, 3)),
        ("RESOURCE_EXHAUSTED", {"retry_after": "3"}, ("rate.exceeded", 429, 3)),
        ("RESOURCE_EXHAUSTED", {}, ("body.too_large", 413, None)),
        ("UNAUTHENTICATED", {}, ("auth.invalid_token", 401, None)),
        ("UNIMPLEMENTED", {}, ("route.not_found", 404, None)),
        ("DEADLINE_EXCEEDED", {}, ("timeout.exceeded", 504, None)),
        ("CANCELLED", {}, ("connection.failed", 0, None)),
        ("UNKNOWN", {}, ("answer.invalid", 0, None)),
    ],
)
def test_a_status_without_details_has_a_code_all_the_same(code, trailers, told):
    error = ended(grpc.StatusCode[code], **trailers)
    assert (error.code, error.status, error.retry_after_s) == told
    assert error.retryable == (
        told[0] in ("connection.failed", "service.overloaded", "rate.exceeded", "timeout.exceeded")
    )


def test_the_time_to_come_again_may_be_in_the_details():
    status = status_pb2.Status(code=14)
    described = errors_pb2.ErrorObject(code="circuit.open", status=503, message="Later.", request_id="r")
    described.details.update({"limit": 3, "share": 0.5})
    status.details.add(type_url="type.googleapis.com/camserve.v1.ErrorObject", value=described.SerializeToString())
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(1500)
    status.details.add().Pack(retry)
    error = ended(grpc.StatusCode.UNAVAILABLE, grpc_status_details_bin=status.SerializeToString())
    assert (error.code, error.retry_after_s, error.request_id) == ("circuit.open", 1.5, "r")
    assert error.details == {"limit": 3, "share": 0.5}
    assert isinstance(error.details["limit"], int)


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (502, b"<html>", "upstream.failed"),
        (503, b"", "service.overloaded"),
        (404, b"[]", "route.not_found"),
        (500, b"[" * 200_000, "internal"),
        (418, b"{}", "answer.invalid"),
        (599, b"{}", "internal"),
        (401, b'{"error": "invalid_client", "error_description": "Unknown."}', "auth.invalid_token"),
        (400, b'{"error": "invalid_scope"}', "param.invalid"),
        (400, b'{"error": {"code": "param.invalid", "message": "m", "details": 3}}', "param.invalid"),
    ],
)
def test_an_answer_that_is_no_error_of_ours_has_a_code_all_the_same(status, body, code):
    error = of_http(status, {"retry-after": "soon", "request-id": "r"}, body)
    assert (error.code, error.status, error.request_id, error.retry_after_s) == (code, status, "r", None)


@pytest.mark.parametrize(("after_s", "at_least", "at_most"), [(-3600, 0, 0), (60, 50, 60)])
def test_the_time_to_come_again_may_be_a_date(after_s, at_least, at_most):
    date = formatdate(time.time() + after_s, usegmt=True)
    error = of_http(503, {"retry-after": date}, b"")
    assert at_least <= error.retry_after_s <= at_most
    assert at_least <= ended(grpc.StatusCode.UNAVAILABLE, retry_after=date).retry_after_s <= at_most


def test_garbled_details_leave_the_status():
    garbled = status_pb2.Status(code=14)
    garbled.details.add(type_url="type.googleapis.com/camserve.v1.ErrorObject", value=b"\xff")
    for packed in (b"\xff", garbled.SerializeToString()):
        error = ended(grpc.StatusCode.UNAVAILABLE, grpc_status_details_bin=packed)
        assert (error.code, error.status) == ("connection.failed", 503)


def test_an_error_names_the_field():
    refused = CamserveError("param.out_of_range", "Too large.", details={"field": "classify.top_k"}, request_id="r")
    assert str(refused) == "param.out_of_range: Too large. (field classify.top_k, request r)"
