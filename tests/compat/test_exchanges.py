"""What counts as a difference between a recorded answer and today's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.compat.exchanges import differences, shape_of

OLD: dict[str, Any] = {
    "model": "shapes",
    "probs": [0.5, 1],
    "made_at": "2026-11-23T15:51:16Z",
    "heatmap": {"type": "png", "url": "http://a/b", "width": 3},
    "versions": [{"version": "1", "aliases": []}, {"version": "2", "aliases": ["stable"], "reason": "old"}],
    "ok": True,
}


def answer(body: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={"content-type": "application/json", **headers}, content=json.dumps(body))


def changed(**changes: Any) -> list[str]:
    return differences(shape_of(answer(OLD)), answer(OLD | changes))


def test_the_same_answer_has_no_differences():
    assert changed() == []


@pytest.mark.parametrize(
    "changes",
    [
        {"new": 1},
        {"model": "another"},
        {"probs": [0.1, 0.2, 0.3]},
        {"heatmap": OLD["heatmap"] | {"layer": "focus"}},
        {"versions": [{"version": "3", "aliases": ["next"], "state": "ready"}]},
    ],
)
def test_what_is_new_and_other_values_are_no_difference(changes):
    assert changed(**changes) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"probs": ["0.5"]}, "body.probs[0] was number and is string"),
        ({"probs": []}, "body.probs is empty"),
        ({"probs": {"a": 1}}, "body.probs was list and is dict"),
        ({"made_at": "yesterday"}, "body.made_at was time and is string"),
        ({"heatmap": OLD["heatmap"] | {"type": "svg"}}, "body.heatmap.type was png and is svg"),
        ({"heatmap": {"type": "png", "url": "http://a/b"}}, "body.heatmap.width is missing"),
        ({"heatmap": OLD["heatmap"] | {"url": "/b"}}, "body.heatmap.url was link and is string"),
        ({"heatmap": None}, "body.heatmap was dict and is null"),
        ({"versions": [{"version": 3, "aliases": []}]}, "body.versions[0].version was string and is number"),
        ({"versions": [{"version": "3"}]}, "body.versions[0].aliases is missing"),
        ({"versions": [{"version": "3", "aliases": [1]}]}, "body.versions[0].aliases[0] was string and is number"),
        ({"ok": 1}, "body.ok was boolean and is number"),
    ],
)
def test_what_a_caller_would_miss_or_misread_is_told(changes, told):
    assert changed(**changes) == [told]


def test_a_renamed_field_is_missing():
    renamed = {("name" if key == "model" else key): value for key, value in OLD.items()}
    assert differences(shape_of(answer(OLD)), answer(renamed)) == ["body.model is missing"]


def test_status_media_type_and_headers_are_kept():
    kept = shape_of(answer({"error": {"code": "a"}}, 404, **{"request-id": "x", "date": "y"}))
    assert kept["headers"] == ["request-id"]
    assert differences(kept, answer({"error": {"code": "b"}}, 404, **{"request-id": "z"})) == [
        "body.error.code was a and is b"
    ]
    told = differences(kept, httpx.Response(400, headers={"content-type": "text/plain"}, content="no"))
    assert told == [
        "the status was 404 and is 400: no",
        "the media type was application/json and is text/plain",
        "the header request-id is missing",
    ]


@pytest.mark.parametrize("media_type", ["application/x-ndjson", "text/event-stream"])
def test_events_are_kept_by_kind(media_type):
    def stream(*documents: dict[str, Any]) -> httpx.Response:
        lines = [json.dumps(document) for document in documents]
        text = "\n".join(lines if media_type.endswith("ndjson") else [f"data: {line}\n" for line in lines])
        return httpx.Response(200, headers={"content-type": media_type}, content=text)

    kept = shape_of(stream({"event": "item", "id": "a"}, {"event": "item", "id": "b", "why": "c"}, {"event": "done"}))
    assert kept["events"] == {"item": {"event": "=item", "id": "string", "why?": "string"}, "done": {"event": "=done"}}
    assert differences(kept, stream({"event": "item", "id": "a"}, {"event": "extra"}, {"event": "done"})) == []
    assert differences(kept, stream({"event": "item", "id": 1})) == [
        "item.id was string and is number",
        "the event done is missing",
    ]
