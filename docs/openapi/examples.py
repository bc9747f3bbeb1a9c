"""Examples of requests and answers, as they went over the edge; tests send the requests again."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from docs.openapi.methods import Described

Node = dict[str, Any]

REQUEST_ID = "7cae8cac-779c-4940-b658-84a2bcb495d4"
# One id of each kind that a path may name.
IDS = {
    "job_id": "job_2zCQjLFVRiJBBrErhcED63",
    "storage_id": "img_0Y0g8KnBmyjwtIqf4eAYIh",
    "object_id": "obj_5azpXJIOhZVncKiiYi4dJF",
    "webhook_id": "webhook_4gP0NagS8BApGLhmdVno2F",
    "event_id": "evt_2zCQjLFVRiJBBrErhcED63",
    "model": "shapes",
    "file": "main.js",
}


@cache
def recorded() -> dict[str, Node]:
    """Returns what went, by method: the body sent (`request`), those received by status (`answers`), or `events`."""
    found: dict[str, Node] = json.loads(Path(__file__).with_name("examples.json").read_text())
    return found


def of_request(described: Described) -> Node:
    """Returns the member that shows what to send."""
    request = recorded().get(described.name, {}).get("request")
    return {} if request is None else {"example": request}


def of_answer(described: Described, status: int) -> Node:
    """Returns the member that shows what comes back."""
    answer = recorded().get(described.name, {}).get("answers", {}).get(str(status))
    return {} if answer is None else {"example": answer}


def of_lines(described: Described) -> Node:
    """Returns the member that shows lines of a stream of JSON objects, by the name of the event."""
    return _named(described, lambda event: event)


def of_events(described: Described) -> Node:
    """Returns the member that shows server-sent events, by name."""
    return _named(described, lambda event: {"data": json.dumps(event, separators=(",", ":"))})


def _named(described: Described, shown: Callable[[Node], Node]) -> Node:
    events = recorded().get(described.name, {}).get("events", [])
    return {"examples": {event["event"]: {"value": shown(event)} for event in events}} if events else {}
