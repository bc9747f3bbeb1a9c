"""Runs what a container or a unit would run, as processes here: its command and settings, in folders of ours.

Each part has an address of its own on the loopback network, so that all keep the ports that they have in containers.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from tests.conftest import camserve_program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
STARTED_WITHIN_S = 180.0


def image_environment() -> dict[str, str]:
    """The variables of ours that the image sets."""
    last = (DEPLOY / "docker" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    return dict(re.findall(r"(CAMSERVE_\w+)=(\S+)", last))


@dataclass
class Part:
    """One container, or one unit."""

    name: str
    arguments: list[str]
    settings: dict[str, str]
    address: str
    log: Path
    # What its paths and its other parts' names are here.
    places: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def here(self, text: str) -> str:
        """Returns a path, a name or an address as it is here."""
        # All at once: what one is replaced by may look like another.
        places = {"0.0.0.0": self.address, **self.places}
        names = "|".join(re.escape(there) for there in sorted(places, key=len, reverse=True))
        return re.sub(rf"(?<![\w/.-])({names})(?![\w-])", lambda found: places[found[1]], text)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAMSERVE_")}
        told = {name: self.here(value) for name, value in self.settings.items()}
        path = f"{Path(camserve_program()).parent}:{os.environ['PATH']}"
        return inherited | told | self.extra | {"PATH": path}

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [camserve_program(), *map(self.here, self.arguments)]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, cwd=self.log.parent)

    def wait(self, good: Callable[[], bool]) -> None:
        """Returns once it is good; fails when the process ends or time does."""
        deadline = time.monotonic() + STARTED_WITHIN_S
        while not good():
            assert self.process is not None
            ended = self.process.poll()
            assert ended is None, f"{self.name} ended with {ended}:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"{self.name} is not ready:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.1)

    def end(self, within_s: float) -> int:
        """Sends SIGTERM and returns the exit status; fails where a supervisor would have killed it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Runs a command as `exec` in the container would."""
        words = [self.here(word) for word in command]
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60, check=False)

    def answers(self, port: int, path: str) -> bool:
        try:
            return httpx.get(f"http://{self.address}:{port}{path}", timeout=5).status_code < 400
        except httpx.TransportError:
            return False

    def is_open(self, port: int) -> bool:
        with socket.socket() as probe:
            probe.settimeout(5)
            return probe.connect_ex((self.address, port)) == 0


@contextmanager
def ending(parts: list[Part]) -> Iterator[None]:
    """Kills what is left of the parts at the end."""
    try:
        yield
    finally:
        for part in parts:
            if part.process and part.process.poll() is None:
                part.process.kill()
                part.process.wait()


def words(command: str) -> list[str]:
    return shlex.split(command)
