"""Comments and rules of the protos as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from textwrap import TextWrapper
from typing import Any

from camserve_server.base.errors import CATALOGUE

Node = dict[str, Any]

_CODES = {reason.value: entry for reason, entry in CATALOGUE.items()}
_LINES = TextWrapper(width=125, break_long_words=False, break_on_hyphens=False)
_SPAN = re.compile(r"(`[^`]*`)")
_MOST_INT64 = 2**63 - 1
_BOUNDS = {
    ("minimum", "maximum"): "",
    ("minLength", "maxLength"): " characters",
    ("minItems", "maxItems"): " entries",
}


def prose(comment: str) -> str:
    """Returns a comment as paragraphs of Markdown in lines, in which codes of errors are links."""
    return "\n\n".join(_LINES.fill(_marked(paragraph)) for paragraph in comment.split("\n\n"))


def _marked(comment: str) -> str:
    return "".join(_code(part) if part.startswith("`") else _plain(part) for part in _SPAN.split(comment))


def cell(comment: str) -> str:
    """Returns a comment as one cell of a table."""
    return _marked(comment.replace("\n\n", " ")).replace("|", "\\|")


def row(*cells: str) -> str:
    """Returns a row of a table."""
    return f"| {' | '.join(cells)} |\n"


def codes(words: Iterable[str]) -> str:
    """Returns words as code, apart by commas."""
    return ", ".join(f"`{word}`" for word in words)


def rules(schema: Node, *, required: bool) -> str:
    """Returns what a field may be, as a cell of a table, from its schema."""
    items = schema.get("items", {})
    parts = ["required"] if required else []
    if "enum" in schema and len(schema["enum"]) > 0:
        parts.append(codes(schema["enum"]))
    if "enum" in items:
        parts.append(f"of {codes(items['enum'])}")
    parts += [_between(schema, *bounds) + unit for bounds, unit in _BOUNDS.items() if _between(schema, *bounds)]
    if "pattern" in schema and not isinstance(schema["type"], list):
        parts.append(f"like `{schema['pattern']}`")
    if schema.get("uniqueItems"):
        parts.append("no two alike")
    if "default" in schema:
        parts.append(f"default `{_json(schema['default'])}`")
    return "; ".join(parts).replace("|", "\\|")


def _between(schema: Node, least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if high == _MOST_INT64:
        high = None
    if low is not None and high is not None:
        return f"{_json(low)} to {_json(high)}"
    return f"at least {_json(low)}" if low is not None else f"at most {_json(high)}" if high is not None else ""


def _json(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _code(span: str) -> str:
    entry = _CODES.get(span.strip("`"))
    return f"[{span}](../errors.md#{entry.status}-{entry.type})" if entry else span


def _plain(text: str) -> str:
    return re.sub(r"([*<_])", r"\\\1", text)
