"""TOML of the plain values that a model.toml holds; the standard library reads TOML and does not write it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(document: Mapping[str, Any]) -> str:
    """Returns the document's text: its values first, then a table for each mapping in it; None is left out.

    Takes strings, numbers, booleans, sequences and mappings; raises ValueError for anything else.
    """
    stated = {key: value for key, value in document.items() if value is not None}
    lines = [_line(key, value) for key, value in stated.items() if not isinstance(value, Mapping)]
    for name, table in stated.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(name)}]", *(_line(key, value) for key, value in table.items() if value is not None)]
    return "\n".join(lines) + "\n"


def _line(key: str, value: object) -> str:
    return f"{_key(key)} = {_value(value)}"


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "a").replace("-", "a").isalnum() else _value(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            # A JSON string is a TOML string, but for the one control character that JSON leaves as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            return f"{{ {', '.join(_line(key, inner) for key, inner in value.items())} }}" if value else "{}"
        case _:
            raise ValueError(f"{type(value).__name__} has no place in a model.toml")
