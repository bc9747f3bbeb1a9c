"""Tokens of a real OpenID provider, whose keys both places find by its discovery document."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.calls import METHODS, Answer, native
from tests.conftest import Stack

pytestmark = pytest.mark.timeout(120)

LIST_MODELS = METHODS["camserve.v1.ModelService.ListModels"]
CREATE_WEBHOOK = METHODS["camserve.v1.WebhookService.CreateWebhook"]
WITHIN_S = 20.0


class Provider:
    """The provider's process, and what a client of it does."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.issuer = self._said()
        self.metadata = httpx.get(f"{self.issuer}/.well-known/openid-configuration").json()

    def rotate(self, kid: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"rotate {kid}\n")
        self._process.stdin.flush()
        assert self._said() == kid

    def token(self, scope: str = "inference.read") -> str:
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = httpx.post(self.metadata["token_endpoint"], data=form, auth=("robot", "robot-secret"))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def _said(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()


@pytest.fixture
def provider() -> Iterator[Provider]:
    program = ["node", str(Path(__file__).with_name("provider.js"))]
    pipe = subprocess.PIPE
    with subprocess.Popen(program, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield Provider(process)
        process.kill()


@pytest.fixture
def stack(provider: Provider, make_stack) -> Stack:
    return make_stack(
        jwt_external_issuer=provider.issuer, jwt_jwks_url=provider.metadata["jwks_uri"], jwt_jwks_cache_s=2
    )


def over_rest(stack: Stack, token: str) -> httpx.Response:
    return httpx.get(f"{stack.edge_url}/v1/models", headers={"authorization": f"Bearer {token}"})


def over_grpc(stack: Stack, token: str, method=LIST_MODELS) -> Answer:
    async def call() -> Answer:
        async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
            return await native(channel, method, token)

    return asyncio.run(call())


def check_refused(stack: Stack, token: str) -> None:
    refused = over_rest(stack, token)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "auth.invalid_token")
    assert over_grpc(stack, token).code == "auth.invalid_token"


def test_tokens_of_a_real_provider_count_through_a_change_of_its_key(provider: Provider, stack: Stack) -> None:
    first = provider.token()
    header = jwt.get_unverified_header(first)
    claims = jwt.decode(first, options={"verify_signature": False})
    assert (header["typ"], header["kid"]) == ("at+jwt", "first")
    assert (claims["iss"], claims["aud"], claims["tenant"]) == (provider.issuer, "camserve", "acme")
    assert over_rest(stack, first).status_code == 200
    assert over_grpc(stack, first).status is grpc.StatusCode.OK
    assert over_grpc(stack, first, CREATE_WEBHOOK).code == "auth.scope_insufficient"

    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for kid in ("first", "unknown"):
        check_refused(stack, jwt.encode(claims, foreign, "RS256", {"kid": kid, "typ": "at+jwt"}))

    provider.rotate("second")
    second = provider.token()
    assert jwt.get_unverified_header(second)["kid"] == "second"
    deadline = time.monotonic() + WITHIN_S
    while over_grpc(stack, second).status is not grpc.StatusCode.OK or over_rest(stack, second).status_code != 200:
        assert time.monotonic() < deadline
    check_refused(stack, first)
    check_refused(stack, jwt.encode(claims, foreign, "RS256", {"kid": "second", "typ": "at+jwt"}))


def test_a_new_key_counts_at_once_natively(provider: Provider, make_stack) -> None:
    issuer = {"jwt_external_issuer": provider.issuer, "jwt_jwks_url": provider.metadata["jwks_uri"]}
    stack = make_stack(**issuer, jwt_jwks_cache_s=3600)
    assert over_grpc(stack, provider.token()).status is grpc.StatusCode.OK
    provider.rotate("second")
    assert over_grpc(stack, provider.token()).status is grpc.StatusCode.OK
