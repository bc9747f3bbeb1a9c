"""Small pieces of the reference page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from typing import Any

Node = dict[str, Any]

_LIMITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "pattern": "like {}",
    "default": "default {}",
    "const": "always {}",
}


def words(names: Iterable[str]) -> str:
    """Returns names as code, apart by commas."""
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)


def shape(schema: Node) -> str:
    """Returns what a schema allows, in a line; empty where that is anything."""
    parts = [_kind(schema)]
    if "enum" in schema:
        parts.append("one of " + words(schema["enum"]))
    parts += [form.format(_value(schema[key])) for key, form in _LIMITS.items() if key in schema]
    return ", ".join(filter(None, parts))


def _kind(schema: Node) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#message-{name}">{name}</a>'
    if "oneOf" in schema and "type" not in schema:
        return " or ".join(filter(None, (shape(each) for each in schema["oneOf"])))
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {shape(schema['items'])}"
    if isinstance(kind, list):
        kind = " or ".join(kind)
    properties = [f"{name}: {shape(member)}" for name, member in schema.get("properties", {}).items()]
    detail = schema.get("format") or schema.get("contentEncoding")
    if kind == "object" and 0 < len(properties) <= 2:
        return f"object ({'; '.join(properties)})"
    return f"{kind} ({detail})" if detail else str(kind)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"<code>{escape(text)}</code>"
