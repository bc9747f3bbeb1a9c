"""An ApiError as gRPC status, and as REST status and body for the edge."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
import orjson
from google.protobuf import any_pb2, duration_pb2, json_format, struct_pb2
from google.rpc import error_details_pb2, status_pb2

from camserve.v1 import errors_pb2
from camserve_server.base.errors import ApiError, Entry, Reason
from camserve_server.core.gate import NoRoomError
from camserve_server.rpc import tus
from camserve_server.rpc.call import Call
from camserve_server.rpc.rate_headers import HOLD_OFF

DOMAIN = "camserve"
# The edge carries a body as a trailer; gRPC clients refuse more than 16 KiB of metadata in all.
_BODY_LIMIT_BYTES = 2048


class Status(NamedTuple):
    """What `abort` takes: a canonical code, a message for the caller, and trailers."""

    code: grpc.StatusCode
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def error_object(error: ApiError, request_id: str) -> errors_pb2.ErrorObject:
    """Returns the error as the message that callers see."""
    message = errors_pb2.ErrorObject(
        type=error.entry.type,
        code=error.reason.value,
        message=error.message,
        status=error.entry.status,
        request_id=request_id,
    )
    if error.details:
        message.details.CopyFrom(json_format.ParseDict(error.details, struct_pb2.Struct()))
    return message


def grpc_code(entry: Entry) -> grpc.StatusCode:
    """Returns the canonical code of a catalogue entry."""
    return grpc.StatusCode[entry.grpc]


def status_of(error: ApiError, call: Call) -> Status:
    """Returns what a call ends with that failed."""
    return Status(grpc_code(error.entry), error.message, _trailers(error, call))


def _trailers(error: ApiError, call: Call) -> tuple[tuple[str, str | bytes], ...]:
    """Returns for the edge status and body, for a native caller the details."""
    headers = [*_headers(error).items(), *call.rate.items(), *call.dates.items()]
    if call.rest and "tus-resumable" in call.metadata:
        headers += [("tus-resumable", tus.VERSION), ("tus-version", tus.VERSION)]
    if call.rest and isinstance(error, NoRoomError) and error.hopeless:
        headers += HOLD_OFF.items()
    if call.has_key:
        headers.append(("idempotency-replayed", str(call.replayed).lower()))
    if call.rest:
        return (
            ("x-http-status", str(error.entry.status)),
            ("x-error-json", _body(error, call.answer_id).decode()),
            *headers,
        )
    return (
        ("request-id", call.request_id),
        ("grpc-status-details-bin", _status(error, call.answer_id).SerializeToString()),
        *headers,
    )


def _headers(error: ApiError) -> dict[str, str]:
    headers = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if error.entry.status == 401:
        known = "" if error.reason is Reason.AUTH_MISSING_TOKEN else f', error="{_oauth_word(error.reason)}"'
        headers["www-authenticate"] = f'Bearer realm="{DOMAIN}"{known}'
    return headers


def _oauth_word(reason: Reason) -> str:
    return "insufficient_scope" if reason is Reason.AUTH_SCOPE_INSUFFICIENT else "invalid_token"


def _body(error: ApiError, request_id: str) -> bytes:
    described: dict[str, Any] = {
        "type": error.entry.type,
        "code": error.reason.value,
        "message": error.message,
        "status": error.entry.status,
        "request_id": request_id,
    }
    if error.details:
        described["details"] = error.details
    body = orjson.dumps({"error": described})
    if len(body) > _BODY_LIMIT_BYTES or not body.isascii():
        described.pop("details", None)
        described["message"] = error.entry.message
        body = orjson.dumps({"error": described})
    return body


def _status(error: ApiError, request_id: str) -> status_pb2.Status:
    details = [
        error_object(error, request_id),
        error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN),
    ]
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration(seconds=error.retry_after_s)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=grpc_code(error.entry).value[0], message=error.message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
