"""Keys of another issuer that the edge fetches itself."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from tests.certificates import certificate
from tests.conftest import free_ports
from tests.edge.conftest import AUDIENCE
from tests.edge.conftest import ISSUER as BUILT_IN
from tests.edge.replica import Replica
from tests.edge.wire import check_error
from tests.jwks_server import ISSUER, JwksServer, jwks_server

from camserve_server.base.errors import Reason
from camserve_server.cli.envoy import EnvoyError, EnvoyProcess
from camserve_server.edge.settings import EdgeSettings, ExternalIssuer

Start = Callable[[ExternalIssuer], Awaitable[Callable[[str], httpx.Response]]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts an edge that knows an issuer; returns what asks it for something with a token."""
    replica = Replica()
    settings = EdgeSettings(
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "logs",
        issuer=BUILT_IN,
        audience=AUDIENCE,
        listen_port=free_ports(1)[0],
        replicas=(("127.0.0.1", replica.port),),
        concurrency=1,
    )
    started: list[EnvoyProcess] = []

    async def start(external: ExternalIssuer) -> Callable[[str], httpx.Response]:
        started.append(EnvoyProcess(dataclasses.replace(settings, external_issuer=external), tmp_path / "envoy"))
        await started[-1].start()
        url = f"http://127.0.0.1:{settings.listen_port}/v1/models"
        return lambda token: httpx.get(url, headers={"authorization": f"Bearer {token}"}, trust_env=False)

    yield start
    for envoy in started:
        await envoy.stop()
    replica.stop()


def known(issuer: JwksServer, **options: object) -> ExternalIssuer:
    return ExternalIssuer(ISSUER, AUDIENCE, jwks_url=issuer.url, **options)  # type: ignore[arg-type]


async def test_a_new_key_counts_within_the_cache_time_and_a_foreign_one_never(start: Start) -> None:
    with jwks_server() as issuer:
        ask = await start(known(issuer, cache_s=1))
        assert ask(issuer.token()).status_code == 200
        check_error(ask(JwksServer("").token()), Reason.AUTH_INVALID_TOKEN)
        old = issuer.token()
        issuer.rotate("p2")
        deadline = time.monotonic() + 20
        while ask(issuer.token()).status_code != 200:
            assert time.monotonic() < deadline
        check_error(ask(old), Reason.AUTH_INVALID_TOKEN)


async def test_while_no_keys_came_a_token_can_be_neither_right_nor_wrong(start: Start) -> None:
    with jwks_server() as issuer:
        issuer.status = 500
        ask = await start(known(issuer))
        check_error(ask(issuer.token()), Reason.STORE_UNAVAILABLE)
        check_error(ask(issuer.token(iss="https://nobody.test")), Reason.AUTH_INVALID_TOKEN)
        issuer.status = 200
        assert ask(issuer.token()).status_code == 200
        issuer.status = 500
        assert ask(issuer.token(sub="t")).status_code == 200


async def test_https_asks_for_a_certificate_that_an_authority_vouches_for(start: Start, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    with jwks_server((cert, key)) as issuer:
        ask = await start(known(issuer, ca_file=cert))
        assert ask(issuer.token()).status_code == 200


@pytest.mark.parametrize("wrong", ["authority", "name"])
async def test_an_address_that_nobody_vouches_for_is_not_believed(start: Start, tmp_path: Path, wrong: str) -> None:
    cert, key = certificate(tmp_path)
    with ExitStack() as stack:
        issuer = stack.enter_context(jwks_server((cert, key)))
        if wrong == "name":
            issuer.url = issuer.url.replace("localhost", "127.0.0.1")
        ask = await start(known(issuer, ca_file=cert if wrong == "name" else None))
        check_error(ask(issuer.token()), Reason.STORE_UNAVAILABLE)
        assert issuer.asked == 0


async def test_authorities_that_are_not_there_stop_the_start(start: Start, tmp_path: Path) -> None:
    external = ExternalIssuer(ISSUER, AUDIENCE, jwks_url="https://id.example.com/jwks", ca_file=tmp_path / "ca.pem")
    with pytest.raises(EnvoyError, match=r"ca\.pem"):
        await start(external)
