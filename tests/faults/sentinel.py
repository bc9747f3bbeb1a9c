"""A primary, its replica and a sentinel that promotes the one when the other dies."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
from tests.conftest import free_ports
from tests.faults.valkey import Valkey, valkey

from camserve_server.cli.valkey import find_valkey

NAME = "images"
_KNOWN_WITHIN_S = 30.0


@dataclass
class Watched:
    """The servers, and where the sentinel is asked."""

    primary: Valkey
    replica: Valkey
    port: int

    @property
    def url(self) -> str:
        # The first one is not there: another is asked then.
        return f"redis://127.0.0.1:1,127.0.0.1:{self.port}?sentinel={NAME}"


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    with valkey(folder / "a") as primary, valkey(folder / "b") as replica:
        replica.follow(primary)
        (port,) = free_ports(1)
        file = folder / "sentinel.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor {NAME} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 1000\nsentinel failover-timeout {NAME} 6000\n"
        )
        with (folder / "sentinel.log").open("ab") as log:
            sentinel = subprocess.Popen([find_valkey(), file, "--sentinel"], stdout=log, stderr=log)
        try:
            _wait_known(port)
            yield Watched(primary, replica, port)
        finally:
            sentinel.kill()
            sentinel.wait()


def _wait_known(port: int) -> None:
    """Returns once the sentinel knows the replica, too."""
    deadline = time.monotonic() + _KNOWN_WITHIN_S
    while True:
        try:
            with redis.Redis(port=port, socket_timeout=5) as client:
                if client.sentinel_master(NAME)["num-slaves"] == 1:
                    return
        except redis.ConnectionError:
            pass
        assert time.monotonic() < deadline, "the sentinel does not know the replica"
        time.sleep(0.05)
