"""A Valkey on a port, as an operator runs it: killed, filled, demoted and promoted by hand."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from tests.conftest import free_ports

from camserve_server.cli.valkey import find_valkey

_STARTED_WITHIN_S = 30.0


class Valkey:
    """One server that keeps an append-only file in `folder`; `options` are further ones of its configuration."""

    def __init__(self, folder: Path, **options: object) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.options = options
        self.port = free_ports(1)[0]
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns once it answers, its data loaded."""
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self._folder, "save": "", "appendonly": "yes"}
        options |= {"appendfsync": "always", "maxmemory-policy": "noeviction", "repl-diskless-sync-delay": 0}
        options |= self.options
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen([find_valkey(), *words], stdout=log, stderr=log)
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while not self._answers():
            assert self.process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.02)

    def ask(self, *words: Any) -> Any:
        with redis.Redis(port=self.port, socket_timeout=5) as client:
            return client.execute_command(*words)

    def tells(self, *words: str) -> bool:
        """Whether the answer to the first two words has all the others in it."""
        with redis.Redis(port=self.port, socket_timeout=5, decode_responses=True) as client:
            client.response_callbacks.clear()
            answer = client.execute_command(*words[:2])
        return all(word in answer for word in words[2:])

    def fill(self) -> None:
        """Refuses every write that needs memory from now on."""
        self.ask("CONFIG", "SET", "maxmemory", "1")

    def enlarge(self) -> None:
        self.ask("CONFIG", "SET", "maxmemory", "0")

    def follow(self, primary: Valkey) -> None:
        """Becomes a replica, and returns once it has everything."""
        self.ask("REPLICAOF", "127.0.0.1", primary.port)
        self.wait_for(primary)

    def wait_for(self, primary: Valkey) -> None:
        """Returns once it has everything that its primary has."""
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while self._offset("slave_repl_offset") < primary._offset("master_repl_offset") or not self._linked():
            assert time.monotonic() < deadline, "the replica does not catch up"
            time.sleep(0.02)

    def take_over(self, primary: Valkey) -> None:
        """Goes from replica to primary as a planned failover does: nothing that was acknowledged is missing."""
        primary.ask("CLIENT", "PAUSE", 5_000, "WRITE")
        while self._offset("slave_repl_offset") < primary._offset("master_repl_offset"):
            time.sleep(0.01)
        self.ask("REPLICAOF", "NO", "ONE")
        primary.ask("REPLICAOF", "127.0.0.1", self.port)
        primary.ask("CLIENT", "UNPAUSE")

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return bool(self.ask("PING"))
        except redis.ConnectionError:
            return False

    def _linked(self) -> bool:
        return self.ask("INFO", "replication").get("master_link_status") == "up"

    def _offset(self, name: str) -> int:
        return int(self.ask("INFO", "replication").get(name, -1))


@contextmanager
def valkey(folder: Path, **options: object) -> Iterator[Valkey]:
    running = Valkey(folder, **options)
    try:
        yield running
    finally:
        running.kill()
