"""What the access log says, and what it never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.edge.conftest import ORIGIN, Edge
from tests.edge.wire import exchange

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


def test_a_verb_that_nobody_knows_is_not_written_down(caller: httpx.Client, access_log: Find) -> None:
    line = access_log(caller.request("SECRET", "/v1/models").headers["request-id"])
    assert (line["method"], line["status"]) == ("other", 405)


def test_envoy_says_nothing_of_a_body_too_large_or_without_a_length(edge: Edge, caller: httpx.Client) -> None:
    head = f"Host: x\r\nAuthorization: Bearer {edge.token()}\r\nContent-Type: image/png\r\n"
    target = "/v1/objects/obj_0123456789abcdefghij?token=SECRET"
    for path in (target, "/v1/infer?model=SECRET"):
        verb = "PUT" if path == target else "POST"
        request = f"{verb} {path} HTTP/1.1\r\n{head}Content-Length: 5000000000\r\n\r\n"
        assert exchange(edge.port, request.encode()).status == 413
    assert caller.post("/v1/infer", content=iter([b"x"]), headers={"content-type": "image/png"}).status_code == 200
    written = edge.settings.envoy_log.read_text()
    assert "SECRET" not in written
    assert "[lua]" not in written


@pytest.mark.parametrize(
    ("verb", "path", "logged"),
    [
        ("GET", "/v1/uploads/patient-SECRET.png", None),
        ("GET", "/v1/uploads/patient-SECRET.png?x=1", None),
        ("PUT", "/patient-SECRET", None),
        ("GET", "/v1/uploads/patient_SECRET0123456789abcdef", "/v1/uploads/{id}"),
        ("GET", "/v1/uploads/img_0123456789abcdefghijkl", "/v1/uploads/img_0123456789abcdefghijkl"),
        ("PATCH", "/v1/models?SECRET", "/v1/models"),
        ("GET", "/v1/models/shapes?SECRET", "/v1/models/shapes"),
        ("PUT", "/v1/models/patient-SECRET.png", "/v1/models/{model}"),
        ("POST", "/v1/infer?SECRET", "/v1/infer"),
        ("GET", "/v1/webhooks/webhook_0123456789abcdefghijkl", "/v1/webhooks/webhook_0123456789abcdefghijkl"),
    ],
)
def test_a_path_is_logged_only_where_it_is_known(
    edge: Edge, access_log: Find, verb: str, path: str, logged: str | None
) -> None:
    with edge.client() as client:
        line = access_log(client.request(verb, path).headers["request-id"])
    assert (line["path"], line["method"], bool(line["route"])) == (logged, verb, True)
    assert "SECRET" not in edge.settings.access_log.read_text()


def test_no_line_holds_the_path_of_a_preflight_or_a_method_that_there_is_not(edge: Edge, access_log: Find) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "GET"}
    native = {"content-type": "application/grpc"}
    with edge.client() as client:
        assert client.options("/v1/SECRET.png", headers=asked).status_code == 200
        client.post("/grpc.health.v1.Health/SECRET", headers=native)
        client.post("/camserve.v1.ModelService/SECRET", headers=native)
        known = client.post("/camserve.v1.ModelService/ListModels", headers=native)
    assert access_log(known.headers["request-id"])["path"] == "/camserve.v1.ModelService/ListModels"
    assert "SECRET" not in edge.settings.access_log.read_text()
