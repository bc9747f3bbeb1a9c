"""Replicas that share their state, behind an edge of their own: what an operator with two of them, or more, runs."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import START_WITHIN_S, STOP_WITHIN_S, camserve_program, free_ports, stack_environment
from tests.faults.valkey import Valkey, valkey

from camserve_server.base.config import load
from camserve_server.cli.envoy import ask_admin
from camserve_server.cli.tokens import issuer
from camserve_server.core.tokens import SCOPES


@dataclass
class Process:
    """A command of camserve that says when it is ready, and may be started again."""

    arguments: list[str]
    environment: dict[str, str]
    ready: Path
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [camserve_program(), *self.arguments], env=self.environment, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_WITHIN_S
        while not self.ready.exists():
            assert self.running is not None
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.arguments} did not start:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.02)

    def send(self, number: int) -> None:
        if self.running:
            with suppress(ProcessLookupError):
                self.running.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Returns the exit status, 0 of what was never started."""
        self.send(number)
        return self.running.wait(STOP_WITHIN_S) if self.running else 0


@dataclass
class Pair:
    """The running processes."""

    data_dir: Path
    edge_url: str
    replicas: list[Process]
    edge: Process
    admin_socket: Path
    store: Valkey

    def token(self, tenant: str = "tests", scopes: tuple[str, ...] = SCOPES) -> str:
        return issuer(load(data_dir=self.data_dir)).issue(tenant=tenant, subject="tests", scopes=scopes, ttl_s=3600)

    async def healthy(self) -> int:
        """Returns how many replicas the edge sends calls to."""
        told = await ask_admin(self.admin_socket, "GET", "/stats?filter=^cluster.replicas.membership_healthy$")
        return int(told.rpartition(":")[2])

    async def start_again(self, replica: Process) -> None:
        """Returns once the edge sends calls to it too."""
        replica.start()
        await asyncio.to_thread(replica.wait_ready)
        while await self.healthy() < len(self.replicas):
            await asyncio.sleep(0.05)


@contextmanager
def pair(folder: Path, *, names: str = "ab", **settings: object) -> Iterator[Pair]:
    """Starts all of it; `names` has a letter for each replica, and `settings` are theirs."""
    data_dir = folder / "data"
    data_dir.mkdir(parents=True)
    with valkey(folder / "valkey") as store:
        edge_port = free_ports(1)[0]
        shared = {"redis_url": store.url, "torch_threads": 1, "imaging_workers": 1, "replica_count": 1}
        shared |= {"public_url": f"http://127.0.0.1:{edge_port}"} | settings
        replicas = []
        for name in names:
            ready = folder / f"{name}.json"
            environment = stack_environment(data_dir, ready_file=ready, **shared)
            replicas.append(Process(["serve"], environment, ready, folder / f"{name}.log"))
        targets = [f"127.0.0.1:{replica.environment['CAMSERVE_GRPC_PORT']}" for replica in replicas]
        limiters = [f"127.0.0.1:{replica.environment['CAMSERVE_INTERNAL_PORT']}" for replica in replicas]
        named = [word for target in targets for word in ("--replica", target)]
        named += [word for limiter in limiters for word in ("--limiter", limiter)]
        ready = folder / "edge.json"
        environment = stack_environment(data_dir, replica_count=1) | {"CAMSERVE_EDGE_PORT": str(edge_port)}
        edge = Process(["edge", *named, "--ready-file", str(ready)], environment, ready, folder / "edge.log")
        try:
            for process in (*replicas, edge):
                process.start()
                if process is replicas[0]:
                    process.wait_ready()  # the first one makes the keys
            for process in (*replicas, edge):
                process.wait_ready()
            run_dir = data_dir / "run" / f"edge-{edge_port}"
            yield Pair(data_dir, f"http://127.0.0.1:{edge_port}", replicas, edge, run_dir / "admin.sock", store)
        finally:
            for process in (edge, *replicas):
                process.send(signal.SIGTERM)
            for process in (edge, *replicas):
                process.end()
