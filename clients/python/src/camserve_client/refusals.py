"""Errors as they come over gRPC and over REST, made into the one exception."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from camserve_client.errors import ANSWER_INVALID, CONNECTION_FAILED, TIMEOUT, CamserveError
from camserve_client.gen import errors_pb2
from camserve_client.structs import plain

_ERROR_OBJECT = f"/{errors_pb2.ErrorObject.DESCRIPTOR.full_name}"
# What an error is where it carries its canonical code only: made by the edge, by gRPC itself or by something between.
_BY_GRPC_CODE: dict[grpc.StatusCode, tuple[str, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: ("param.invalid", 400),
    grpc.StatusCode.UNAUTHENTICATED: ("auth.invalid_token", 401),
    grpc.StatusCode.PERMISSION_DENIED: ("access.denied", 403),
    grpc.StatusCode.NOT_FOUND: ("route.not_found", 404),
    grpc.StatusCode.UNIMPLEMENTED: ("route.not_found", 404),
    grpc.StatusCode.OUT_OF_RANGE: ("body.too_large", 413),
    grpc.StatusCode.DEADLINE_EXCEEDED: (TIMEOUT, 504),
    grpc.StatusCode.UNAVAILABLE: (CONNECTION_FAILED, 503),
    # The caller's own cancellation never comes here: it is asyncio's.
    grpc.StatusCode.CANCELLED: (CONNECTION_FAILED, 0),
    grpc.StatusCode.INTERNAL: ("internal", 500),
}
_BY_STATUS = {
    401: "auth.invalid_token",
    403: "access.denied",
    404: "route.not_found",
    405: "method.not_allowed",
    413: "body.too_large",
    415: "media.unsupported",
    429: "rate.exceeded",
    502: "upstream.failed",
    503: "service.overloaded",
    504: TIMEOUT,
}


def of_object(error: errors_pb2.ErrorObject, retry_after_s: float | None = None) -> CamserveError:
    """Returns the error that a message describes."""
    details = plain(error.details) if error.HasField("details") else None
    return CamserveError(
        error.code,
        error.message,
        status=error.status,
        request_id=error.request_id or None,
        retry_after_s=retry_after_s,
        details=details,
    )


def of_grpc(error: grpc.aio.AioRpcError) -> CamserveError:
    """Returns the error of a call that ended with another status than OK."""
    trailers = dict(cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ()))
    retry_after_s = _seconds(trailers.get("retry-after"))
    described = None
    for detail in _details(trailers.get("grpc-status-details-bin")):
        # Something between may have garbled them.
        with suppress(DecodeError):
            if detail.type_url.endswith(_ERROR_OBJECT):
                described = errors_pb2.ErrorObject.FromString(detail.value)
            elif retry_after_s is None and detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after_s = delay.seconds + delay.nanos / 1e9
    if described is not None:
        return of_object(described, retry_after_s)
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        # Without a time to come again it is gRPC's own word for a message above the limit.
        name, status = ("body.too_large", 413) if retry_after_s is None else ("rate.exceeded", 429)
    elif code is grpc.StatusCode.UNAVAILABLE and retry_after_s is not None:
        # The edge says so; a connection says nothing of when.
        name, status = "service.overloaded", 503
    else:
        name, status = _BY_GRPC_CODE.get(code, (ANSWER_INVALID, 0))
    message = error.details() or code.name
    return CamserveError(
        name, message, status=status, request_id=_text(trailers.get("request-id")), retry_after_s=retry_after_s
    )


def of_http(status: int, headers: Mapping[str, str], body: bytes) -> CamserveError:
    """Returns the error of an answer whose status is not 2xx."""
    retry_after_s = _seconds(headers.get("retry-after"))
    request_id = headers.get("request-id")
    said = _parsed(body)
    error = said.get("error")
    if isinstance(error, dict) and isinstance(error.get("code"), str):
        return CamserveError(
            error["code"],
            str(error.get("message", "")),
            status=status,
            request_id=error.get("request_id") or request_id,
            retry_after_s=retry_after_s,
            details=details if isinstance(details := error.get("details"), dict) else None,
        )
    if isinstance(error, str):
        # The token endpoint speaks RFC 6749. Its words for wrong credentials are our code for a wrong token.
        code = "auth.invalid_token" if status == 401 else "param.invalid"
        message = f"{error}: {said.get('error_description', '')}".rstrip(": ")
        return CamserveError(code, message, status=status, request_id=request_id, retry_after_s=retry_after_s)
    code = _BY_STATUS.get(status, "internal" if status >= 500 else ANSWER_INVALID)
    return CamserveError(
        code, f"The answer was HTTP {status}.", status=status, request_id=request_id, retry_after_s=retry_after_s
    )


def _details(packed: str | bytes | None) -> Iterable[Any]:
    try:
        return status_pb2.Status.FromString(packed).details if isinstance(packed, bytes) else ()
    except DecodeError:
        return ()


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _seconds(text: str | bytes | None) -> float | None:
    """Reads `Retry-After`: seconds, or the date that something between may send."""
    text = _text(text) or ""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _text(value: str | bytes | None) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
