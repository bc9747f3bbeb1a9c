"""What the access log says, and what it never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from tests.edge.conftest import Edge

Find = Callable[[str], dict[str, Any]]


def test_a_line_says_who_asked_for_what_and_how_it_ended(edge: Edge, access_log: Find) -> None:
    with edge.client() as client:
        response = client.get("/v1/models/shapes?view=full")
    line = access_log(response.headers["request-id"])
    assert line["tenant"] == "acme"
    assert (line["route"], line["method"], line["path"]) == ("ModelService.GetModel", "GET", "/v1/models/shapes")
    assert (line["status"], line["bytes_sent"]) == (response.status_code, len(response.content))
    assert {"ms", "flags", "details", "bytes_received"} <= set(line)


def test_no_line_holds_a_query_or_a_header(edge: Edge, stranger: httpx.Client, access_log: Find) -> None:
    headers = {"authorization": "Bearer SECRET-token", "user-agent": "SECRET-agent", "x-any": "SECRET-header"}
    for path in ("/v1/objects/obj_0123456789abcdefghij?token=SECRET", "/v1/models?x=SECRET", "/none?SECRET"):
        access_log(stranger.get(path, headers=headers).headers["request-id"])
    assert "SECRET" not in edge.settings.access_log.read_text()
    assert "SECRET" not in edge.settings.envoy_log.read_text()
