"""The OpenAPI document as tests read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openapi_schema_validator import OAS31Validator, oas31_format_checker
from referencing import Registry
from referencing.jsonschema import DRAFT202012

Node = dict[str, Any]

DOCUMENT: Node = json.loads((Path(__file__).parents[1] / "docs/api/openapi.json").read_text())
_PLACE = "urn:openapi"
_REGISTRY: Registry[Any] = Registry().with_resource(_PLACE, DRAFT202012.create_resource(DOCUMENT))


def operations() -> Iterator[tuple[str, str, Node]]:
    """Yields path, verb and operation, shared answers and parameters in their places."""
    for path, verbs in DOCUMENT["paths"].items():
        for verb, operation in verbs.items():
            answers = {status: resolved(answer) for status, answer in operation["responses"].items()}
            yield path, verb, {**operation, "responses": answers}


def operation(name: str) -> Node:
    """Returns the operation of that name."""
    return next(found for _, _, found in operations() if found["operationId"] == name)


def resolved(node: Node) -> Node:
    """Returns what a reference leads to, and any other node as it is."""
    if "$ref" not in node:
        return node
    found: Node = DOCUMENT
    for key in node["$ref"].removeprefix("#/").split("/"):
        found = found[key]
    return found


def conforms(value: Any, schema: Node) -> None:
    """Fails with everything in which a value is not as a schema says."""
    within = {"$id": _PLACE + ":within", "$defs": {"it": _placed(schema)}, "$ref": "#/$defs/it"}
    validator = OAS31Validator(within, registry=_REGISTRY, format_checker=oas31_format_checker)
    problems = [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]
    assert not problems, "\n".join(problems)


def _placed(schema: Any) -> Any:
    """Makes references those of the document."""
    if isinstance(schema, list):
        return [_placed(each) for each in schema]
    if isinstance(schema, dict):
        return {key: _PLACE + each if key == "$ref" else _placed(each) for key, each in schema.items()}
    return schema
