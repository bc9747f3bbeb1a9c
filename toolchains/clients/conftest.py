"""A running stack that sends events to this machine, and what the examples of the clients find in their folder."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
from PIL import Image
from tests.certificates import certificate
from tests.conftest import Stack, free_ports, start_stack, stop_stack
from tests.images import GOLDEN, opened

ROOT = Path(__file__).parents[2]
# The address that the examples in the READMEs name as their receiver of events.
RECEIVER = "127.0.0.1:9000"


@pytest.fixture(scope="session")
def receiver_port() -> int:
    """Where an example listens for events; one example runs at a time."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def page_port() -> int:
    """Where a page is served that calls the service from another origin."""
    return free_ports(1)[0]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, receiver_port: int, page_port: int) -> Iterator[Stack]:
    """One stack for every client."""
    running = start_stack(
        tmp_path_factory.mktemp("stack"),
        webhook_allow=f"127.0.0.1/32:{receiver_port}",
        cors_origins=f"http://127.0.0.1:{page_port}",
    )
    yield running
    stop_stack(running)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small photos, a picture of some megabytes and a slide of 50 MB."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, shape in {"photo": "star", "other": "ring"}.items():
        opened((GOLDEN / f"{shape}.png").read_bytes()).convert("RGB").save(folder / f"{name}.jpg", quality=95)
    pixels = np.random.default_rng(7).integers(0, 255, (4100, 4100, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "slide.tif")
    Image.fromarray(pixels[:1300, :1300]).save(folder / "large.png", compress_level=1)
    assert (folder / "slide.tif").stat().st_size > 50_000_000
    return folder


@pytest.fixture
def environment(stack: Stack, pictures: Path) -> dict[str, str]:
    """What the tests that are written in the clients' own languages are told."""
    return {
        **os.environ,
        "CAM_EDGE": stack.edge_url,
        "CAM_GRPC": stack.grpc_target,
        "CAM_PICTURES": str(pictures),
        "CAM_TOKEN": stack.token(tenant=f"client-{uuid4()}"),
    }


@pytest.fixture(scope="session")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The same of a stack whose edge and gRPC port are encrypted, with the file of who vouches for them."""
    folder = tmp_path_factory.mktemp("encrypted")
    cert, key = certificate(folder, "127.0.0.1")
    running = start_stack(folder / "stack", tls_cert=cert, tls_key=key, grpc_tls_cert=cert, grpc_tls_key=key)
    edge, port = (f"localhost:{at.rpartition(':')[2]}" for at in (running.edge_url, running.grpc_target))
    told = {"CAM_ENCRYPTED": f"https://{edge} grpcs://{edge} grpcs://{port}", "CAM_CA": str(cert)}
    yield {**os.environ, **told, "CAM_TOKEN": running.token()}
    stop_stack(running)


def here(text: str, stack: Stack, receiver_port: int) -> str:
    """An example with the addresses of a test."""
    return text.replace("http://127.0.0.1:8080", stack.edge_url).replace(RECEIVER, f"127.0.0.1:{receiver_port}")


def run(*command: str, cwd: Path, environment: dict[str, str] | None = None) -> str:
    """Runs a command that must succeed and returns what it printed."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}"
    return done.stdout
