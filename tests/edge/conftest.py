"""A real Envoy in front of a replica that does what a test tells it."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ed25519
from tests.conftest import free_ports
from tests.edge.replica import Replica

from camserve_server.cli.envoy import EnvoyProcess
from camserve_server.edge.settings import EdgeSettings, ExternalIssuer

ISSUER = "https://camserve.test"
AUDIENCE = "camserve"
ORIGIN = "https://app.example"
JSON_LIMIT_BYTES = 64 * 1024
UPLOAD_LIMIT_BYTES = 256 * 1024


@dataclass
class Edge:
    """A running Envoy, its replica and its callers."""

    settings: EdgeSettings
    replica: Replica
    external_key: ed25519.Ed25519PrivateKey = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    @property
    def port(self) -> int:
        return self.settings.listen_port

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s", "tenant": "acme", "scope": "", "exp": now + 600}
        return {key: value for key, value in {**claims, **changes}.items() if value is not None}

    def token(self, **changes: Any) -> str:
        return self.replica.sign(self.claims(**changes))

    def external_token(self, **changes: Any) -> str:
        claims = self.claims(**{"iss": "https://partner.test", "aud": "partner-api", **changes})
        return jwt.encode(claims, self.external_key, algorithm="EdDSA", headers={"kid": "e1"})

    def client(self, **options: Any) -> httpx.Client:
        """A caller with a valid token; `headers=None` for one without."""
        bearer = {"authorization": f"Bearer {self.token()}"}
        url = f"http://127.0.0.1:{self.port}"
        own: dict[str, Any] = {"headers": bearer, "timeout": 20, "trust_env": False, "verify": False}
        return httpx.Client(base_url=url, **{**own, **options})


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def running_edge(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edge]:
    folder = tmp_path_factory.mktemp("edge")
    external_key = ed25519.Ed25519PrivateKey.generate()
    jwks = folder / "partner.json"
    public = jwt.algorithms.OKPAlgorithm.to_jwk(external_key.public_key(), as_dict=True)
    jwks.write_text(json.dumps({"keys": [{**public, "kid": "e1", "alg": "EdDSA", "use": "sig"}]}))
    replica = Replica()
    settings = EdgeSettings(
        run_dir=folder / "run",
        log_dir=folder / "logs",
        issuer=ISSUER,
        audience=AUDIENCE,
        listen_port=free_ports(1)[0],
        replicas=(("127.0.0.1", replica.port),),
        limiters=(("127.0.0.1", replica.port),),
        external_issuer=ExternalIssuer("https://partner.test", "partner-api", jwks),
        max_json_bytes=JSON_LIMIT_BYTES,
        max_upload_bytes=UPLOAD_LIMIT_BYTES,
        sync_timeout_s=1.5,
        timeout_grace_s=0.5,
        stream_idle_timeout_s=2.5,
        cors_origins=(ORIGIN,),
        reflection=True,
        concurrency=1,
    )
    envoy = EnvoyProcess(settings, folder / "envoy")
    await envoy.start()
    yield Edge(settings, replica, external_key)
    await envoy.stop()
    replica.stop()


@pytest.fixture
def edge(running_edge: Edge) -> Edge:
    """The edge, with a replica that answers every call with an empty message."""
    running_edge.replica.received.clear()
    running_edge.replica.answer = None
    running_edge.replica.limit = None
    return running_edge


@pytest.fixture
def caller(edge: Edge) -> Iterator[httpx.Client]:
    with edge.client() as client:
        yield client


@pytest.fixture
def stranger(edge: Edge) -> Iterator[httpx.Client]:
    with edge.client(headers=None) as client:
        yield client


@pytest.fixture
def access_log(edge: Edge) -> Callable[[str], dict[str, Any]]:
    """Returns the line of a request once Envoy has written it."""

    def find(request_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in edge.settings.access_log.read_text().splitlines():
                if request_id in line:
                    return dict(json.loads(line))
            time.sleep(0.05)
        raise AssertionError("the request is not in the access log")

    return find
