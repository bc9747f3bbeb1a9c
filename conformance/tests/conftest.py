"""What the kit's tests share: a deployment, every token for it, and options that name them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from tests.clock import FakeClock
from tests.conftest import Stack, free_ports, make_stack, start_stack, stop_stack

from camserve_conformance.options import Options
from camserve_server.base.clock import SystemClock
from camserve_server.base.config import load
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import TokenIssuer
from camserve_server.stores.keyring import KeyRing

__all__ = ["make_stack"]

ORIGIN = "https://conformance.example"
SCOPES = "inference.read inference.write jobs.read jobs.write webhooks.read webhooks.write"


@dataclass(frozen=True)
class Deployment:
    """A running stack, and the options of a run with everything that checks need.

    Its links lead to `proxy_port`, and it may send events to `events_port`.
    """

    stack: Stack
    proxy_port: int
    events_port: int
    options: Options


def _expired(stack: Stack) -> str:
    """A token that was issued an hour ago, for a minute."""
    settings = load(data_dir=stack.data_dir)
    keys = IssuerKeys(KeyRing(settings.data_dir / "keys" / "tokens.json", clock=SystemClock()), SystemClock())
    then = FakeClock(time.time() - 3600)
    issuer = TokenIssuer(
        keys,
        then,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
    )
    return issuer.issue(tenant="kit", subject="tests", scopes=("jobs.read",), ttl_s=60)


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    data_dir = tmp_path_factory.mktemp("conformance")
    proxy_port, events, events_proxy = free_ports(3)
    public_url = f"http://127.0.0.1:{proxy_port}"
    stack = start_stack(
        data_dir,
        public_url=public_url,
        webhook_allow=f"127.0.0.1/32:{events},127.0.0.1/32:{events_proxy}",
        cors_origins=ORIGIN,
    )
    assert not stack.camserve("tenants", "set", "slow", "--rps", "2", "--burst", "5").returncode
    made = stack.camserve("client", "create", "--tenant", "kit", "--scope", SCOPES).stdout
    client = dict(line.partition("=")[::2] for line in made.splitlines())
    options = Options(
        url=stack.edge_url,
        token=stack.token(tenant="kit"),
        other_token=stack.token(tenant="other"),
        narrow_token=stack.token(tenant="kit", scopes=("jobs.read",)),
        expired_token=_expired(stack),
        slow_token=stack.token(tenant="slow"),
        client_id=client["client_id"],
        client_secret=client["client_secret"],
        grpc=stack.grpc_target,
        public_url=public_url,
        receive=f"127.0.0.1:{events}",
        origin=ORIGIN,
    )
    yield Deployment(stack, proxy_port, events_proxy, options)
    stop_stack(stack)


@pytest.fixture
def options(deployment: Deployment) -> Options:
    return deployment.options


@pytest.fixture
def proxied(deployment: Deployment) -> Options:
    """Options of a run through the proxies, over REST."""
    return replace(
        deployment.options,
        url=f"http://127.0.0.1:{deployment.proxy_port}",
        receive_url=f"http://127.0.0.1:{deployment.events_port}",
        grpc="",
    )
