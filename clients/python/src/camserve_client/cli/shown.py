"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from camserve_client.cli.tables import Column, Fitted
from camserve_client.errors import CamserveError
from camserve_client.results import Item, Result

# The code of what is refused here, before anything is sent.
USAGE_INVALID = "usage.invalid"
# Terminals do not agree how wide joined characters are, only of each by itself.
_JOINTS = re.compile("(?<=[^\\x00-\\x7f])[\u200c\u200d](?=[^\\x00-\\x7f])|\ufe0f")
COLUMNS = ("id", "status", "class", "label", "probability", "error", "heatmap")


def plain(value: Any) -> Any:
    """Returns a value as JSON has it; the bytes of a heatmap are left out."""
    if isinstance(value, CamserveError):
        return error_fields(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {name: plain(one) for name, one in fields.items() if not isinstance(one, bytes) and one is not None}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def error_fields(error: CamserveError) -> dict[str, Any]:
    """Returns what an error says."""
    fields = {"code": error.code, "message": error.message, "status": error.status, "request_id": error.request_id}
    more = {"retry_after_s": error.retry_after_s, "details": dict(error.details) or None}
    return {name: value for name, value in (fields | more).items() if value is not None}


def error_text(error: CamserveError) -> str:
    """Returns an error for people, with the facts that its sentence leaves out."""
    facts = ", ".join(
        f"{name}: {value}"
        for name, value in error.details.items()
        if isinstance(value, str | int | float) and name != "field"
    )
    return printable(f"{error} [{facts}]" if facts else str(error))


def printable(text: str, kept: str = "") -> str:
    """Returns a text that cannot command a terminal: what others named may hold anything.

    It is one line, and what cannot be seen is escaped in it, but for the characters of `kept`.
    """
    return "".join(one if one in kept or _is_seen(one) else _escaped(one) for one in _JOINTS.sub("", text))


def quoted(text: str) -> str:
    """Returns a text as a shell takes it for one word, of characters that can be seen and copied."""
    if all(map(_is_seen, text)):
        return shlex.quote(text)
    inner = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(one if _is_seen(one) else _bytes_escaped(one) for one in inner) + "'"


def line(value: Any) -> str:
    """Returns a value as one line of JSON, which cannot command a terminal either."""
    text = json.dumps(plain(value), ensure_ascii=False)
    return text if text.isprintable() else "".join(one if _is_seen(one) else json.dumps(one)[1:-1] for one in text)


def table(columns: Iterable[str | Column], rows: Iterable[Iterable[Any]]) -> Fitted:
    """Returns a table; None is an empty cell."""
    named = [Column(one) if isinstance(one, str) else one for one in columns]
    return Fitted(named, [["" if cell is None else _cell(cell) for cell in row] for row in rows])


def classes(result: Result) -> Fitted:
    """Returns the classes of one image, most probable first."""
    rows = ((one.id, one.label, f"{one.prob:.2%}", "█" * round(one.prob * 30)) for one in result.classes)
    return table(("class", "label", "probability", Column("", spare=1)), rows)


def outcomes(rows: Iterable[Mapping[str, str]]) -> Fitted:
    """Returns a row for each outcome."""
    columns = (
        Column("image", "name"),
        Column("status", spare=1),
        "label",
        "probability",
        "error",
        Column("heatmap in", "name", spare=2),
    )
    cells = (
        (row["id"], row["status"], row["label"], _percent(row["probability"]), row["error"], row.get("file", ""))
        for row in rows
    )
    return table(columns, cells)


def outcome(item: Item) -> dict[str, str]:
    """Returns the outcome of an image as columns of a table or of CSV."""
    cells = dict.fromkeys(COLUMNS, "") | {"id": item.id, "status": item.status}
    if item.result and item.result.classes:
        top = item.result.top
        cells |= {"class": top.id, "label": top.label, "probability": f"{top.prob:.4f}"}
    if item.result and item.result.heatmap and item.result.heatmap.url:
        cells["heatmap"] = item.result.heatmap.url
    if item.error:
        cells["error"] = item.error.code
    return cells


def when(value: datetime) -> str:
    """Returns a time as it is here, with the name of its zone."""
    return f"{value.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def counted(count: int, noun: str) -> str:
    """Returns a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _is_seen(one: str) -> bool:
    return one.isprintable() or unicodedata.category(one) == "Zs"


def _escaped(one: str) -> str:
    # A byte of a file's name that is no UTF-8, as Python has it.
    byte = ord(one) - 0xDC00
    return (chr(byte) if 0x80 <= byte <= 0xFF else one).encode("unicode_escape").decode()


def _bytes_escaped(one: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in one.encode(errors="surrogateescape"))


def _percent(probability: str) -> str:
    return f"{float(probability):.2%}" if probability else ""


def _cell(value: Any) -> str:
    return when(value) if isinstance(value, datetime) else printable(str(value))
