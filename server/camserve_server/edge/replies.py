"""The answers that the edge itself makes, in the words of the error catalogue."""

from __future__ import annotations

import json
from typing import Any

from camserve_server.base.errors import CATALOGUE, Entry, Reason
from camserve_server.edge import limits

Node = dict[str, Any]

# What a response has to look like (CEL), first match wins. Envoy names its reasons in `response.code_details`.
# The verb is read from the metadata of the outer filter, since transcoding turns every verb into POST.
_JWT = "response.code_details.startsWith('jwt_authn_access_denied')"
_TRANSCODER = "response.code_details.contains('grpc_json_transcode')"
_BODILESS = "metadata.filter_metadata['camserve.edge']['method'] in ['GET', 'HEAD', 'DELETE']"
CONDITIONS: tuple[tuple[str, Reason], ...] = (
    (f"{_JWT} && response.code_details.contains('Jwt_is_missing')", Reason.AUTH_MISSING_TOKEN),
    (f"{_JWT} && response.code_details.contains('Jwt_is_expired')", Reason.AUTH_TOKEN_EXPIRED),
    (f"{_JWT} && response.code_details.contains('Jwks_remote_fetch_is_failed')", Reason.STORE_UNAVAILABLE),
    (_JWT, Reason.AUTH_INVALID_TOKEN),
    ("response.code == 413", Reason.BODY_TOO_LARGE),
    (f"{_TRANSCODER} && response.code >= 500", Reason.INTERNAL),
    (f"{_TRANSCODER} && {_BODILESS}", Reason.PARAM_INVALID),
    (_TRANSCODER, Reason.JSON_MALFORMED),
    ("response.code == 404", Reason.ROUTE_NOT_FOUND),
    ("response.code == 405", Reason.METHOD_NOT_ALLOWED),
    ("response.code == 415", Reason.MEDIA_UNSUPPORTED),
    (f"response.code == 429 && '{limits.SHED}' in response.headers", Reason.SERVICE_OVERLOADED),
    (f"response.code == 429 && '{limits.HELD}' in response.headers", Reason.CONCURRENCY_EXCEEDED),
    ("response.code == 429", Reason.RATE_EXCEEDED),
    ("response.code == 408 || response.code == 504", Reason.TIMEOUT_EXCEEDED),
    ("response.code == 502", Reason.UPSTREAM_FAILED),
    ("response.code == 503", Reason.SERVICE_OVERLOADED),
    ("response.code == 501", Reason.PARAM_INVALID),  # the caller's transfer coding
    ("response.code >= 500", Reason.INTERNAL),
    ("response.code >= 400", Reason.PARAM_INVALID),
)

# What a gRPC status of a replica means when the replica did not say it in our words, as grpc core's own refusals:
# code, a part of the message or nothing, reason. First match wins; whatever is not here is `internal`.
FALLBACKS: tuple[tuple[int, str, Reason], ...] = (
    (1, "", Reason.SERVICE_DRAINING),  # only a server that ends its grace time cancels by itself
    (2, "protobuf.message.DecodeError", Reason.JSON_MALFORMED),  # nested deeper than protobuf reads
    (3, "", Reason.PARAM_INVALID),
    (4, "", Reason.TIMEOUT_EXCEEDED),
    (5, "", Reason.ROUTE_NOT_FOUND),
    (7, "", Reason.ACCESS_DENIED),
    (8, "larger than max", Reason.BODY_TOO_LARGE),
    (8, "metadata", Reason.PARAM_INVALID),
    (8, "", Reason.SERVICE_OVERLOADED),
    (12, "", Reason.ROUTE_NOT_FOUND),
    (13, "deserializing request", Reason.JSON_MALFORMED),
    (14, "", Reason.SERVICE_OVERLOADED),
    (16, "", Reason.AUTH_INVALID_TOKEN),
)

_GRPC_CODES = {
    "CANCELLED": 1,
    "INVALID_ARGUMENT": 3,
    "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "OUT_OF_RANGE": 11,
    "UNIMPLEMENTED": 12,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
_REQUEST_ID = "%REQ(X-REQUEST-ID)%"
# Requests that the codec refuses never get an id, so they are named after their connection and the moment.
_CODEC_REQUEST_ID = "edge-%CONNECTION_ID%-%START_TIME(%s%9f)%"


def local_replies() -> Node:
    """Returns the `local_reply_config` that words every error which Envoy makes."""
    mappers = [
        _mapper(_all(_NO_REQUEST_ID, _cel(when)), reason, request_id=_CODEC_REQUEST_ID) for when, reason in CONDITIONS
    ]
    for when, reason in CONDITIONS:
        mappers.append(_mapper(_all(_NATIVE, _cel(when)), reason, native=True))
        mappers.append(_mapper(_cel(when), reason))
    return {"mappers": mappers}


def fallbacks() -> list[Node]:
    """Returns the table from which the outer filter words errors that a replica did not word itself."""
    rows = [(code, part, CATALOGUE[reason], reason) for code, part, reason in FALLBACKS]
    return [
        {"grpc_status": str(code), "contains": part, **_fallback(entry, reason)} for code, part, entry, reason in rows
    ] + [_fallback(CATALOGUE[Reason.INTERNAL], Reason.INTERNAL)]


def _fallback(entry: Entry, reason: Reason) -> Node:
    head, tail = _body(reason, "\n").split("\\n")
    return {"status": str(entry.status), "head": head, "tail": tail, "headers": _headers(reason)}


def _headers(reason: Reason) -> dict[str, str]:
    entry = CATALOGUE[reason]
    headers: dict[str, str] = {}
    # Of a rate the limiter itself has said when.
    if entry.retry_after_s is not None and entry.status >= 500:
        headers["retry-after"] = str(entry.retry_after_s)
    if entry.status == 401:
        missing = reason is Reason.AUTH_MISSING_TOKEN
        headers["www-authenticate"] = 'Bearer realm="camserve"' + ("" if missing else ', error="invalid_token"')
    return headers


def _body(reason: Reason, request_id: str) -> str:
    entry = CATALOGUE[reason]
    error = {"type": entry.type, "code": reason.value, "message": entry.message, "status": entry.status}
    return json.dumps({"error": {**error, "request_id": request_id}}, separators=(",", ":"))


def _mapper(when: Node, reason: Reason, *, request_id: str = _REQUEST_ID, native: bool = False) -> Node:
    entry = CATALOGUE[reason]
    headers = {**_headers(reason), "request-id": request_id}
    if native:
        # An unknown method is UNIMPLEMENTED to every gRPC client, as at the replica's own port.
        code = "UNIMPLEMENTED" if reason is Reason.ROUTE_NOT_FOUND else entry.grpc
        headers["grpc-status"] = str(_GRPC_CODES[code])
        body: Node = {"text_format_source": {"inline_string": entry.message}}
    else:
        body = {
            "text_format_source": {"inline_string": _body(reason, request_id)},
            "content_type": "application/json",
        }
    return {
        "filter": when,
        "status_code": entry.status,
        "headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ],
        "body_format_override": body,
    }


def _cel(expression: str) -> Node:
    kind = "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter"
    return {"extension_filter": {"name": "cel", "typed_config": {"@type": kind, "expression": expression}}}


def _all(*filters: Node) -> Node:
    return {"and_filter": {"filters": list(filters)}}


_NO_REQUEST_ID: Node = {
    "header_filter": {"header": {"name": "x-request-id", "present_match": True, "invert_match": True}}
}
_NATIVE: Node = {
    "metadata_filter": {
        "matcher": {
            "filter": "camserve.edge",
            "path": [{"key": "native"}],
            "value": {"string_match": {"exact": "1"}},
        },
        "match_if_key_not_found": False,
    }
}
