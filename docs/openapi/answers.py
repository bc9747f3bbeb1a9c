"""The answers of an operation: success in every form, and errors with their codes."""

from __future__ import annotations

from http import HTTPStatus
from itertools import groupby
from typing import Any

from camserve_server.base.errors import CATALOGUE, Reason
from camserve_server.edge.descriptors import JSON, Binding
from docs.openapi import examples, headers
from docs.openapi.comments import comments
from docs.openapi.failures import reasons
from docs.openapi.methods import Described
from docs.openapi.schemas import Schemas

Node = dict[str, Any]

_BYTES: Node = {"schema": {"contentMediaType": "application/octet-stream"}}
_OPENAPI: Node = {
    "type": "object",
    "required": ["openapi", "info", "paths"],
    "properties": {"openapi": {"const": "3.1.0"}, "info": {"type": "object"}, "paths": {"type": "object"}},
}
# What methods that answer with google.api.HttpBody answer with.
_RAW: dict[str, Node] = {
    "Download": {
        "image/png": {"schema": {"contentMediaType": "image/png"}},
        "application/x-npy": {"schema": {"contentMediaType": "application/x-npy"}},
        "application/octet-stream": _BYTES,
    },
    "GetOpenApi": {JSON: {"schema": _OPENAPI}},
    "GetReferencePage": {"text/html": {"schema": {"type": "string"}}},
    "GetPlayground": {"text/html": {"schema": {"type": "string"}}},
    "GetPlaygroundFile": {
        kind: {"schema": {"type": "string"}} for kind in ("text/javascript", "text/css", "image/svg+xml", "text/html")
    },
}
_ERROR = {"$ref": "#/components/schemas/Error"}
_STREAM = (
    "The events as they come; what is shown is one of them, on a line of NDJSON or sent by the server as an event."
)
_STATUSES = {
    200: "The answer.",
    201: "What was made.",
    202: "The receipt: the work goes on.",
    204: "It is done.",
    206: "The range that was asked for.",
}


def responses(parts: list[tuple[Described, Binding]], schemas: Schemas) -> Node:
    """Returns the answers of an operation by status, those of its methods together."""
    described, binding = parts[0]
    found = {}
    for status in sorted({status for part, _ in parts for status in part.success}):
        found[str(status)] = _success(described, binding, status, schemas)
    every = {reason for part, each in parts for reason in reasons(part, each)}
    ordered = sorted((reason for reason in CATALOGUE if reason in every), key=lambda reason: CATALOGUE[reason].status)
    for status, group in groupby(ordered, key=lambda reason: CATALOGUE[reason].status):
        found[str(status)] = _failure(described, binding, status, list(group))
    if described.name == "IssueToken":
        _word_as_oauth(found)
    return dict(sorted(found.items()))


def components() -> dict[str, Node]:
    """Returns the schemas of errors that no message is."""
    return {
        "Error": {
            "type": "object",
            "description": "Is the body of every error, whoever makes it.",
            "required": ["error"],
            "properties": {"error": {"$ref": "#/components/schemas/ErrorObject"}},
        },
        "OAuthError": {
            "type": "object",
            "description": "Is a refusal of the token endpoint (RFC 6749 section 5.2).",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "string",
                    "enum": ["invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"],
                },
                "error_description": {"type": "string"},
            },
        },
    }


def _success(described: Described, binding: Binding, status: int, schemas: Schemas) -> Node:
    streams = described.method.server_streaming and not described.method.raw_response
    description = _STREAM if streams else _STATUSES.get(status, HTTPStatus(status).phrase)
    answer: Node = {"description": description, "headers": headers.of(described, status)}
    content = {} if status == 204 or binding.verb == "HEAD" else _content(described, status, schemas)
    return answer | ({"content": content} if content else {})


def _content(described: Described, status: int, schemas: Schemas) -> Node:
    if described.method.raw_response:
        return _RAW.get(described.name, {"application/octet-stream": _BYTES})
    schema = schemas.reference(described.output, sent=False)
    if not described.method.server_streaming:
        return {JSON: {"schema": schema, **examples.of_answer(described, status)}}
    # Of a sequence OpenAPI 3.1 can describe one entry only.
    wrapped = {"type": "string", "contentMediaType": JSON, "contentSchema": schema}
    event = {"type": "object", "required": ["data"], "properties": {"data": wrapped}}
    return {
        "application/x-ndjson": {"schema": schema, **examples.of_lines(described)},
        "text/event-stream": {"schema": event, **examples.of_events(described)},
    }


def _failure(described: Described, binding: Binding, status: int, group: list[Reason]) -> Node:
    answer: Node = {
        "description": f"{HTTPStatus(status).phrase}:\n\n"
        + "\n".join(f"- `{reason}`: {meaning(reason)}" for reason in group),
        "headers": headers.of(described, status),
    }
    if binding.verb != "HEAD":
        codes = {"properties": {"error": {"properties": {"code": {"enum": [reason.value for reason in group]}}}}}
        answer["content"] = {JSON: {"schema": {"allOf": [_ERROR, codes]}, "example": _example(group[0])}}
    return answer


def meaning(reason: Reason) -> str:
    """Returns what the catalogue of the protos says of a reason."""
    comment = comments()[f"camserve.v1.ErrorObject.Reason.{reason.value.replace('.', '_', 1)}"]
    return comment.partition(f"{CATALOGUE[reason].grpc}. ")[2]


def _example(reason: Reason) -> Node:
    entry = CATALOGUE[reason]
    error = {"type": entry.type, "code": reason.value, "message": entry.message, "status": entry.status}
    return {"error": {**error, "request_id": examples.REQUEST_ID}}


def _word_as_oauth(found: dict[str, Node]) -> None:
    """Gives what the token endpoint itself refuses the form of its standard; what the edge refuses keeps ours."""
    oauth = {"$ref": "#/components/schemas/OAuthError"}
    found["400"] |= {
        "description": "`invalid_request`, `unsupported_grant_type`, `invalid_scope`, or an error of the edge.",
        "content": {
            JSON: {
                "schema": {"oneOf": [oauth, _ERROR]},
                "example": {"error": "invalid_request", "error_description": "A field is given twice."},
            }
        },
    }
    found["401"] = {
        "description": "`invalid_client`: the client is unknown or its secret is wrong.",
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in ("Request-Id", "WWW-Authenticate")},
        "content": {
            JSON: {
                "schema": oauth,
                "example": {
                    "error": "invalid_client",
                    "error_description": "The client is unknown or its secret is wrong.",
                },
            }
        },
    }
