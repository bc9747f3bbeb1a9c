"""Who gets past the edge."""

from __future__ import annotations

import base64
import json
import time

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.conftest import Stack
from tests.edge.conftest import AUDIENCE, Edge
from tests.edge.wire import check_error, exchange

from camserve_server.base.errors import Reason

# Every one of these would be open if rules stood on prefixes, or if some filter read the path otherwise.
BYPASSES = [
    "//v1/models",
    "/V1/models",
    "/v1/./models",
    "/v1/../v1/models",
    "/v1/models;x",
    "/v1/models.",
    "/v1/models/",
    "/v1/health/",
    "/v1/health/../models",
    "/v1/health;/../models",
    "/v1/health%20",
    "/v1/objects/../models",
    "/v1/objects/obj_0123456789abcdef/../../models",
    "/v1/objects/obj_0123456789abcdef/x",
    "/v1/objects/x",
    "/.well-known/jwks.json/x",
    "/.well-known/jwks.json.",
    "/oauth2/token/..",
    "/v1\\models",
    "/v1%252fmodels",
    "http://x/v1/models",
    "/index.html",
    "/playground",
    "/playground/main.js/x",
    "/unknown",
    "/camserve.v1.ModelService/ListModels",
    "/camserve.v1.HealthService/GetHealth/x",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]


@pytest.mark.parametrize("path", BYPASSES)
def test_every_other_path_needs_a_token(edge: Edge, path: str) -> None:
    response = exchange(edge.port, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    check_error(response, Reason.AUTH_MISSING_TOKEN)
    assert not edge.replica.received


@pytest.mark.parametrize("path", ["/v1%2fmodels", "/v1%2Fhealth", "/v1%5cmodels", "/v1/health%00"])
def test_an_escaped_slash_or_nul_is_refused(edge: Edge, path: str) -> None:
    response = exchange(edge.port, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    check_error(response, Reason.PARAM_INVALID)
    assert not edge.replica.received


@pytest.mark.parametrize(
    ("verb", "path"),
    [("DELETE", "/v1/models"), ("POST", "/v1/infer"), ("GET", "/v1/models/m?model=x"), ("GET", "/v1/models?x=1")],
)
def test_a_stranger_learns_nothing_but_401(stranger: httpx.Client, verb: str, path: str) -> None:
    check_error(stranger.request(verb, path, content=b"x" if verb == "POST" else None), Reason.AUTH_MISSING_TOKEN)


def test_public_routes_need_no_token(edge: Edge, stranger: httpx.Client) -> None:
    assert stranger.get("/.well-known/jwks.json").json()["keys"][0]["kid"] == "k1"


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"exp": 1_600_000_000}, Reason.AUTH_TOKEN_EXPIRED),
        ({"exp": None}, Reason.AUTH_INVALID_TOKEN),
        ({"aud": "other"}, Reason.AUTH_INVALID_TOKEN),
        ({"aud": None}, Reason.AUTH_INVALID_TOKEN),
        ({"iss": "https://other.test"}, Reason.AUTH_INVALID_TOKEN),
        ({"iss": "https://partner.test", "aud": "partner-api"}, Reason.AUTH_INVALID_TOKEN),
        ({"nbf": 4_000_000_000}, Reason.AUTH_INVALID_TOKEN),
        ({"exp": 4_000_000_000}, Reason.AUTH_INVALID_TOKEN),
    ],
)
def test_a_token_with_wrong_claims_is_refused(edge: Edge, claims: dict[str, object], reason: Reason) -> None:
    with edge.client(headers={"authorization": f"Bearer {edge.token(**claims)}"}) as client:
        response = client.get("/v1/models")
    check_error(response, reason)
    assert response.headers["www-authenticate"] == 'Bearer realm="camserve", error="invalid_token"'


def test_a_token_may_live_24_hours_and_the_clock_may_be_10_seconds_off(edge: Edge) -> None:
    now = int(time.time())
    for exp, status in ((now + 86_400, 200), (now + 86_400 + 60, 401), (now - 5, 200), (now - 15, 401)):
        with edge.client(headers={"authorization": f"Bearer {edge.token(exp=exp)}"}) as client:
            assert client.get("/v1/models").status_code == status


def test_a_forged_or_unsigned_token_is_refused(edge: Edge) -> None:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    unsigned = f"{part({'alg': 'none'})}.{part(edge.claims())}."
    altered = edge.token().split(".")
    altered[1] = part(edge.claims(tenant="other"))
    for token in (unsigned, ".".join(altered), "x", "a.b.c"):
        with edge.client(headers={"authorization": f"Bearer {token}"}) as client:
            check_error(client.get("/v1/models"), Reason.AUTH_INVALID_TOKEN)


def test_a_token_is_read_from_the_header_only(edge: Edge, stranger: httpx.Client) -> None:
    token = edge.token()
    check_error(stranger.get(f"/v1/models?access_token={token}"), Reason.AUTH_MISSING_TOKEN)
    check_error(stranger.get("/v1/models", headers={"cookie": f"access_token={token}"}), Reason.AUTH_MISSING_TOKEN)
    check_error(stranger.get("/v1/models", headers={"authorization": f"Basic {token}"}), Reason.AUTH_MISSING_TOKEN)


def test_the_name_of_the_scheme_may_be_small(edge: Edge, stranger: httpx.Client) -> None:
    assert stranger.get("/v1/models", headers={"authorization": f"bearer {edge.token()}"}).status_code == 200
    check_error(stranger.get("/v1/models", headers={"authorization": "bearer x"}), Reason.AUTH_INVALID_TOKEN)


def test_the_token_goes_on_to_the_replica_which_verifies_it_too(edge: Edge, caller: httpx.Client) -> None:
    caller.get("/v1/models")
    assert edge.replica.received[0].metadata["authorization"] == caller.headers["authorization"]


def test_tokens_of_another_issuer_count_by_its_key_file(edge: Edge) -> None:
    with edge.client(headers={"authorization": f"Bearer {edge.external_token()}"}) as client:
        assert client.get("/v1/models").status_code == 200
    for changes, reason in (
        ({"aud": AUDIENCE}, Reason.AUTH_INVALID_TOKEN),
        ({"exp": 1_600_000_000}, Reason.AUTH_TOKEN_EXPIRED),
    ):
        with edge.client(headers={"authorization": f"Bearer {edge.external_token(**changes)}"}) as client:
            check_error(client.get("/v1/models"), reason)


def test_the_refusal_never_names_the_url(edge: Edge, stranger: httpx.Client) -> None:
    response = stranger.get("/v1/models/secret-name")
    assert "secret" not in str(response.headers) + response.text


def test_health_and_reflection_go_through_with_a_token_when_configured(edge: Edge) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        answer = check(health_pb2.HealthCheckRequest(), metadata=(("authorization", f"Bearer {edge.token()}"),))
        with pytest.raises(grpc.RpcError) as refused:
            check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_health_and_reflection_are_off_by_default(stack: Stack) -> None:
    port = stack.edge_url.rpartition(":")[2]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for path in (
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ):
            for metadata, code in (
                ((), grpc.StatusCode.UNAUTHENTICATED),
                ((("authorization", f"Bearer {stack.token()}"),), grpc.StatusCode.UNIMPLEMENTED),
            ):
                with pytest.raises(grpc.RpcError) as refused:
                    channel.unary_unary(path)(b"", metadata=metadata)
                assert refused.value.code() is code
