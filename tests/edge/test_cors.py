"""Browsers from an allowed origin, and from others."""

from __future__ import annotations

import httpx
import pytest
from tests.conftest import Stack
from tests.edge.conftest import ORIGIN
from tests.edge.wire import check_error

from camserve_server.base.errors import Reason

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


@pytest.mark.parametrize("path", ["/v1/infer", "/v1/models", "/camserve.v1.InferenceService/Infer"])
def test_a_preflight_of_an_allowed_origin_needs_no_token(stranger: httpx.Client, path: str) -> None:
    response = stranger.options(path, headers={"origin": ORIGIN, **PREFLIGHT})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert "authorization" in response.headers["access-control-allow-headers"]


def test_an_allowed_origin_may_read_answers_and_errors(caller: httpx.Client, stranger: httpx.Client) -> None:
    for client, status in ((caller, 200), (stranger, 401)):
        response = client.get("/v1/models", headers={"origin": ORIGIN})
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, ORIGIN)
        exposed = response.headers["access-control-expose-headers"].split(", ")
        assert {"request-id", "grpc-status", "grpc-status-details-bin"} <= set(exposed)


@pytest.mark.parametrize("origin", ["https://evil.example", f"{ORIGIN}.evil.example", "http://app.example", "null"])
def test_another_origin_is_told_nothing(stranger: httpx.Client, caller: httpx.Client, origin: str) -> None:
    check_error(stranger.options("/v1/infer", headers={"origin": origin, **PREFLIGHT}), Reason.AUTH_MISSING_TOKEN)
    assert "access-control-allow-origin" not in caller.get("/v1/models", headers={"origin": origin}).headers


def test_cors_is_off_by_default(stack: Stack) -> None:
    response = httpx.options(f"{stack.edge_url}/v1/infer", headers={"origin": ORIGIN, **PREFLIGHT})
    check_error(response, Reason.AUTH_MISSING_TOKEN)
