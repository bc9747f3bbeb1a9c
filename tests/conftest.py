"""What tests share: a running stack of real Valkey, server, imaging workers and Envoy, and a Valkey alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from camserve_server.base.config import load, wait_asleep
from camserve_server.cli.tokens import issuer
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.core.tokens import SCOPES
from camserve_server.stores.cluster import primaries
from camserve_server.stores.redis import connect

# As a replica does: the tests of two workers compute on the same cores.
wait_asleep()
# How many replicas a stack has that does not say: `make test-replicas` makes it three.
REPLICAS = int(os.environ.get("CAMSERVE_TEST_REPLICAS", "1"))
# Whether the tests of the stores have a cluster of three: `make test-cluster`.
CLUSTER = os.environ.get("CAMSERVE_TEST_STORE") == "cluster"
# What the command adds to the ports of one replica for those of the next.
PORT_STEPS = (10, 20)
# Below what systems take for connections that go out, and apart for each of the workers that run tests side by side.
FIRST_PORT = 12_000
# Whole blocks of 30, and room for ten workers.
PORTS_PER_WORKER = 2_010
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# None comes twice before all have come, nor is one a further replica's of another; two runs begin at different places.
PORTS = itertools.cycle(
    FIRST_PORT + WORKER * PORTS_PER_WORKER + number
    for start in [secrets.randbelow(PORTS_PER_WORKER)]
    for number in (*range(start, PORTS_PER_WORKER), *range(start))
    if number % 30 < 10
)
START_WITHIN_S = 90.0 * REPLICAS
STOP_WITHIN_S = 30.0


@dataclass
class Stack:
    """A stack as `camserve up` runs it, and tokens for it."""

    process: subprocess.Popen[str]
    environment: dict[str, str]
    data_dir: Path
    edge_url: str
    grpc_target: str
    internal_target: str
    ready: dict[str, object]
    metrics_port: int

    @property
    def metrics_urls(self) -> list[str]:
        """Where each replica shows its metrics."""
        return [replica["metrics_url"] for replica in self.ready["replicas"]]  # type: ignore[attr-defined]

    @property
    def server_logs(self) -> list[Path]:
        """What each replica has written."""
        return sorted((self.data_dir / "logs").glob("server*.log"))

    def token(self, *, tenant: str = "tests", scopes: tuple[str, ...] = SCOPES, ttl_s: int = 3600) -> str:
        return issuer(load(data_dir=self.data_dir)).issue(tenant=tenant, subject="tests", scopes=scopes, ttl_s=ttl_s)

    def headers(self, **options: object) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(**options)}"}  # type: ignore[arg-type]

    def camserve(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [camserve_program(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def camserve_program() -> str:
    return str(Path(sys.executable).with_name("camserve"))


def free_ports(count: int) -> list[int]:
    """Ports after each of which those of two further replicas are free, too."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = next(PORTS)
            with suppress(OSError):
                for step in (0, *PORT_STEPS):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + step))
                found.append(port)
    return found


def stack_environment(data_dir: Path, **settings: object) -> dict[str, str]:
    edge, grpc, internal, metrics = free_ports(4)
    own = {
        "data_dir": data_dir,
        "edge_port": edge,
        "grpc_port": grpc,
        "internal_port": internal,
        "metrics_port": metrics,
        "replica_count": REPLICAS,
        **settings,
    }
    if own["replica_count"] == 1:
        own.setdefault("torch_threads", 2 if WORKERS == 1 else 1)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAMSERVE_")}
    return inherited | {f"CAMSERVE_{name.upper()}": str(value) for name, value in own.items()}


def start_stack(data_dir: Path, **settings: object) -> Stack:
    environment = stack_environment(data_dir, **settings)
    ready_file = data_dir / "ready.json"
    process = subprocess.Popen(
        [camserve_program(), "up", "--ready-file", str(ready_file)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + START_WITHIN_S
    while not ready_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            output = process.communicate()[0]
            log = data_dir / "logs" / "server.log"
            pytest.fail(f"the stack did not start:\n{output}\n{log.read_text()[-4000:] if log.exists() else ''}")
        time.sleep(0.05)
    ready = json.loads(ready_file.read_text())
    return Stack(
        process,
        environment,
        data_dir,
        ready["edge_url"],
        ready["grpc_target"],
        ready["internal_target"],
        ready,
        int(environment["CAMSERVE_METRICS_PORT"]),
    )


def stop_stack(stack: Stack) -> str:
    """Stops with SIGTERM and returns what the command printed."""
    with suppress(ProcessLookupError):
        stack.process.send_signal(signal.SIGTERM)
    return stack.process.communicate(timeout=STOP_WITHIN_S)[0]


def start_replica(stack: Stack, **settings: object) -> tuple[subprocess.Popen[bytes], Path]:
    """Starts another server on the state of a stack; returns it and the file that is there once it is healthy."""
    grpc, internal, metrics, edge = free_ports(4)
    ready = stack.data_dir / f"replica-{grpc}.json"
    own = {
        "redis_url": json.loads((stack.data_dir / "run" / "stack.json").read_text())["redis_url"],
        "edge_port": edge,
        "grpc_port": grpc,
        "internal_port": internal,
        "metrics_port": metrics,
        "replica_count": 1,
        "ready_file": ready,
        **settings,
    }
    environment = stack.environment | {f"CAMSERVE_{name.upper()}": str(value) for name, value in own.items()}
    return subprocess.Popen([camserve_program(), "serve"], env=environment, stderr=subprocess.DEVNULL), ready


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for every test that does not stop or break it; `broken` is a model that cannot load."""
    data_dir = tmp_path_factory.mktemp("stack")
    shutil.copytree(Path(__file__).parent / "models", data_dir / "models")
    running = start_stack(data_dir)
    yield running
    stop_stack(running)


@pytest.fixture
def make_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Starts stacks of its own for tests that stop or break them."""
    started: list[Stack] = []

    def make(**settings: object) -> Stack:
        running = start_stack(tmp_path / f"stack{len(started)}", **settings)
        started.append(running)
        return running

    yield make
    for running in started:
        if running.process.poll() is None:
            stop_stack(running)
        elif running.process.stdout:
            running.process.stdout.close()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Valkey, or of a cluster, that runs as long as the session."""
    if CLUSTER:
        from tests.faults.cluster import cluster

        with cluster(tmp_path_factory.mktemp("cluster")) as nodes:
            yield nodes.url
        return
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner.run(valkey.start())
        runner.run(valkey.stop())


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database."""
    client = connect(redis_url)
    for server in await primaries(client):
        await server.flushall()
    yield client
    await client.aclose()
