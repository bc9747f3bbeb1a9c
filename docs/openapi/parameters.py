"""What a call takes in its path, its query and its headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from camserve_server.edge.descriptors import ID, Binding
from docs.openapi import examples
from docs.openapi.headers import REQUEST
from docs.openapi.methods import Described
from docs.openapi.schemas import Schemas

Node = dict[str, Any]

_VALUE = "google.protobuf.Value"
_SIDE = {"type": "integer", "minimum": 1, "maximum": 4096}


def parameters(described: Described, binding: Binding, schemas: Schemas) -> list[Node]:
    """Returns the parameters of one verb and path."""
    found = [_in_path(described.input, name, schemas) for name in binding.variables]
    if described.takes_query(binding):
        found += [
            {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
            for name, schema in flat(described.input, schemas, without={*binding.variables, "body"})
        ]
        for parameter in found:
            if parameter["name"] == "token":  # of a link, which nobody can do without
                parameter["required"] = True
    return found + [{"$ref": f"#/components/parameters/{name}"} for name in REQUEST if REQUEST[name].applies(described)]


def flat(message: Descriptor, schemas: Schemas, *, without: Iterable[str] = ()) -> Iterator[tuple[str, Node]]:
    """Yields every field of a message and of those in it with its dotted name and its schema."""
    for field in message.fields:
        if field.name in without:
            continue
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            yield from _leaf(field, schemas)
        else:
            for name, schema in flat(field.message_type, schemas):
                yield f"{field.name}.{name}", schema


def _leaf(field: FieldDescriptor, schemas: Schemas) -> Iterator[tuple[str, Node]]:
    schema = schemas.field(field, sent=True)
    if isinstance(schema.get("type"), list):
        # Everything in a query is text.
        schema |= {"type": "integer", "format": "int64"}
        schema.pop("pattern")
    if field.message_type is None or field.message_type.full_name != _VALUE:
        yield field.name, schema
        return
    yield field.name, {"type": "string", "description": f"{schema['description']} The object as JSON."}
    for side in ("width", "height"):
        yield f"{field.name}.{side}", {**_SIDE, "description": f"Is the same as `{side}` in `{field.name}`."}


def _in_path(message: Descriptor, name: str, schemas: Schemas) -> Node:
    field = message.fields_by_name[name]
    schema = schemas.field(field, sent=True)
    schema["pattern"] = f"^{ID}$" if name.endswith("_id") else "^[^/]+$"
    if name.endswith("_id"):
        schema.pop("maxLength", None)
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": schema.pop("description"),
        "schema": schema,
        **({"example": examples.IDS[name]} if name in examples.IDS else {}),
    }
