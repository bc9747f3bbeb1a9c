"""Answers that several operations have in common, told once."""

from __future__ import annotations

import json
from collections import Counter
from http import HTTPStatus
from typing import Any

Node = dict[str, Any]


def share_errors(paths: Node) -> dict[str, Node]:
    """Replaces errors that occur more than once by references, and returns what those lead to by name.

    The most frequent one of a status has the name of the status; others are named after an operation besides.
    """
    found = list(_errors(paths))
    counts = Counter(_key(status, answer) for _, status, answer in found)
    names: dict[str, str] = {}
    made: dict[str, Node] = {}
    usual = {status: key for key, _ in reversed(counts.most_common()) for status in [key[:3]]}
    for operation, status, answer in found:
        key = _key(status, answer)
        if counts[key] < 2:
            continue
        if key not in names:
            phrase = HTTPStatus(int(status)).phrase.title().replace(" ", "").replace("-", "")
            names[key] = phrase if usual[status] == key else f"{phrase}As{operation['operationId']}"
            made[names[key]] = dict(answer)
        operation["responses"][status] = {"$ref": f"#/components/responses/{names[key]}"}
    return dict(sorted(made.items()))


def _errors(paths: Node) -> list[tuple[Node, str, Node]]:
    return [
        (operation, status, answer)
        for verbs in paths.values()
        for operation in verbs.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]


def _key(status: str, answer: Node) -> str:
    return status + json.dumps(answer)
