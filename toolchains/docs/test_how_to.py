"""The commands of docs/how-to that change the service, or start one of their own."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from tests.certificates import certificate
from tests.conftest import Stack, free_ports, start_stack, stop_stack
from tests.images import star_png
from tests.jwks_server import jwks_server

from camserve.v1 import limits_pb2, limits_pb2_grpc

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8080"
_MINE = r"^<!-- run by: toolchains/docs/test_how_to\.py -->\n```sh\n(.*?)^```"

pytestmark = pytest.mark.timeout(600)


def page(name: str) -> str:
    return (ROOT / name).read_text()


def scripts(name: str) -> list[str]:
    """The blocks of a page that are run here, in their order."""
    found = re.findall(_MINE, page(name), re.MULTILINE | re.DOTALL)
    assert found
    return found


def run(stack: Stack, script: str, cwd: Path, **environment: str) -> str:
    """Runs a script as a reader would and returns what it printed."""
    programs = str(Path(sys.executable).parent)
    known = stack.environment | environment | {"PATH": f"{programs}:{os.environ['PATH']}"}
    text = f"set -euo pipefail\n{script.replace(ADDRESS, stack.edge_url)}"
    done = subprocess.run(["bash", "-c", text], cwd=cwd, env=known, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def settings(script: str, **places: str) -> dict[str, str]:
    """What a script exports before it starts the service, as `start_stack` takes it."""
    *exports, start = script.strip().splitlines()
    assert start == "camserve up"
    assert all(line.startswith("export CAMSERVE_") for line in exports)
    text = "\n".join([*exports, "env -0"])
    for there, here in places.items():
        text = text.replace(there, here)
    told = subprocess.run(["bash", "-c", text], env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)
    pairs = (entry.split("=", 1) for entry in told.stdout.decode().split("\0") if entry.startswith("CAMSERVE_"))
    return {name.removeprefix("CAMSERVE_").lower(): value for name, value in pairs}


@contextmanager
def started(folder: Path, **settings: str) -> Iterator[Stack]:
    """A stack of these settings, as long as the context lasts."""
    running = start_stack(folder, **settings)
    try:
        yield running
    finally:
        stop_stack(running)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for what changes models and limits."""
    with started(tmp_path_factory.mktemp("stack")) as running:
        yield running


def classified(caller: httpx.Client, model: str) -> dict:
    said = caller.post(
        "/v1/infer",
        files={"image": ("star.png", star_png())},
        data={"model": model, "grad_cam.enabled": "true"},
        timeout=60,
    )
    assert said.status_code == 200, said.text
    return said.json()


def answer(stack: Stack, model: str) -> dict:
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers()) as caller:
        return classified(caller, model)


def test_serve_your_own_model(own, tmp_path):
    (program,) = re.findall(
        r"^```python\n(.*?)^```", page("docs/how-to/serve-your-own-model.md"), re.MULTILINE | re.DOTALL
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    (script,) = scripts("docs/how-to/serve-your-own-model.md")
    printed = run(own, script, tmp_path)
    assert "birds 1  passed" in printed
    said = answer(own, "birds")
    assert {one["label"] for one in said["classes"]} == {"European robin", "Eurasian wren", "Rook"}
    assert said["heatmap"]["layer"] == "3"


def test_change_versions_safely(own, tmp_path):
    watch, canary, promote = scripts("docs/how-to/change-versions-safely.md")
    assert "shapes 1  passed" in run(own, watch, tmp_path)
    assert "canary 1: 50 %" in run(own, canary, tmp_path)
    printed = run(own, promote, tmp_path)
    assert "smaller, and as good" in printed
    assert answer(own, "shapes")["model_version"] == "2"


def test_limit_a_tenant(own, tmp_path):
    limit, look = scripts("docs/how-to/limit-a-tenant.md")
    assert re.search(r"acme .*rps 5 .*images-per-day 2000.*max-batch 32", run(own, limit, tmp_path))
    while "2000" not in (seen := run(own, look, tmp_path)):
        pass
    assert "acme" in seen


def test_use_your_identity_provider(tmp_path):
    start, ask = scripts("docs/how-to/use-your-identity-provider.md")
    with jwks_server() as provider:
        told = settings(start, **{"https://id.example.com/jwks": provider.url})
        token = provider.token(iss="https://id.example.com", organization="acme", tenant="nobody")
        with started(tmp_path / "stack", **told) as running:
            assert '"tenant":"acme"' in run(running, ask, tmp_path, PROVIDER_TOKEN=token)


def test_put_it_behind_tls(tmp_path):
    edge, port = scripts("docs/how-to/put-it-behind-tls.md")
    cert, key = certificate(tmp_path, "127.0.0.1")
    (number,) = free_ports(1)
    places = {
        "/etc/camserve": str(tmp_path),
        "images.example.com": "localhost",
        "8443": str(number),
        # Other machines of the network are no part of a test.
        "0.0.0.0": "127.0.0.1",
    }
    told = settings(edge, **places) | settings(port, **places)
    assert (told["tls_cert"], told["grpc_tls_key"]) == (str(cert), str(key))
    with started(tmp_path / "stack", **told) as running:
        headers = running.headers()
        trusted = ssl.create_default_context(cafile=cert)
        with httpx.Client(base_url=f"https://localhost:{number}", verify=trusted, headers=headers) as caller:
            link = classified(caller, "shapes")["heatmap"]["url"]
            assert link.startswith(f"https://localhost:{number}/v1/objects/")
            assert caller.get(link).content.startswith(b"\x89PNG")
        with grpc.secure_channel(running.grpc_target, grpc.ssl_channel_credentials(cert.read_bytes())) as channel:
            metadata = (("authorization", headers["Authorization"]),)
            limits = limits_pb2_grpc.LimitServiceStub(channel).GetLimits
            assert limits(limits_pb2.GetLimitsRequest(), metadata=metadata, timeout=30).tenant == "tests"
