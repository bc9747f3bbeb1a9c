"""Objects of JSON that protobuf carries."""

from __future__ import annotations

from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message


def plain(struct: Message) -> dict[str, Any]:
    """Returns the object with its whole numbers as int: protobuf has no other number than double."""
    made: dict[str, Any] = _whole(json_format.MessageToDict(struct))
    return made


def _whole(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _whole(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_whole(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
