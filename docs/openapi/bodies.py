"""The bodies of requests, in every media type that the edge takes."""

from __future__ import annotations

from typing import Any

from camserve.v1 import inference_pb2
from docs.openapi import examples
from docs.openapi.comments import comments
from docs.openapi.methods import FORM, IMAGE_TYPES, MULTIPART, Described
from docs.openapi.parameters import flat
from docs.openapi.schemas import Schemas

Node = dict[str, Any]

_BYTES = {"type": "string", "contentMediaType": "application/octet-stream"}
_WANTED_TYPES = ", ".join((*IMAGE_TYPES, "application/octet-stream"))
_OPTIONS = inference_pb2.InferRequest.DESCRIPTOR


def request_body(parts: list[Described], schemas: Schemas) -> Node:
    """Returns the body of an operation, whose methods share one path and verb and differ in their media types."""
    content = {kind: _content(part, kind, schemas) for part in parts for kind in part.media_types()}
    return {"required": True, "content": content}


def _content(described: Described, kind: str, schemas: Schemas) -> Node:
    if kind == MULTIPART:
        return _multipart(described, schemas)
    if kind == FORM:
        properties = dict(flat(described.input, schemas, without={"body"}))
        properties["grant_type"]["const"] = "client_credentials"
        schema = {"type": "object", "required": ["grant_type"], "properties": properties}
        return {"schema": schema, **examples.of_request(described)}
    if described.takes_image:
        # Without a type: the body is the bytes themselves (OpenAPI 3.1, "Considerations for File Uploads").
        return {"schema": {"contentMediaType": kind, "description": comments()[f"{described.input.full_name}.body"]}}
    return {"schema": schemas.reference(described.input, sent=True), **examples.of_request(described)}


def _multipart(described: Described, schemas: Schemas) -> Node:
    image = {
        **_BYTES,
        "description": "Is the file. Its type and the ending of its name, where given, must be those of its bytes.",
    }
    if "request" not in described.input.fields_by_name:
        return {
            "schema": {"type": "object", "required": ["image"], "properties": {"image": image}},
            "encoding": {"image": {"contentType": _WANTED_TYPES}},
        }
    fields = dict(flat(_OPTIONS, schemas, without={"image"}))
    options = {
        "type": "object",
        "description": "Is `InferRequest` without `image`, instead of the other fields.",
        "required": ["model"],
        "properties": {
            field.name: schemas.field(field, sent=True) for field in _OPTIONS.fields if field.name != "image"
        },
    }
    schema = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": image, "request": options, **fields},
        "description": "Holds the file and, in any order, either `request` or the single fields.",
    }
    return {
        "schema": schema,
        "encoding": {"image": {"contentType": _WANTED_TYPES}, "request": {"contentType": "application/json"}},
    }
