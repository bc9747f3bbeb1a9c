"""camserve beside other servers: the same picture and networks, five classes and the map over the picture as PNG."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from benchmarks.driver import Driver
from benchmarks.peers import MODEL, PORT, SHAPES_WEIGHTS
from benchmarks.processes import descendants, memory
from benchmarks.service import RESNET, SHAPES, Service

PYTHON = Path(sys.prefix) / "peers" / "bin" / "python"
_STARTED_WITHIN_S = 180.0
_STOPPED_WITHIN_S = 20.0
_CALLERS = 8
GRPC, JSON = "camserve, gRPC", "camserve, REST"
KINDS = ((RESNET, True), (RESNET, False), (SHAPES, True), (SHAPES, False))


@dataclass(frozen=True, slots=True)
class Peer:
    """A server: what starts it on a port, and where and how it takes a question."""

    name: str
    command: Callable[[str], list[str]]
    path: str = "/predict"
    wrapped: str | None = None
    """Is the key under which the question goes as a list of one."""


def _module(name: str) -> list[str]:
    return [str(PYTHON), "-m", f"benchmarks.peers.{name}"]


PEERS = (
    Peer("FastAPI", lambda _: _module("on_fastapi")),
    Peer("LitServe", lambda _: _module("on_litserve")),
    Peer(
        "BentoML",
        lambda port: [str(PYTHON), "-m", "bentoml", "serve", "benchmarks.peers.on_bentoml:Peer", "--port", port],
        path="/answer_all",
        wrapped="questions",
    ),
    Peer("Ray Serve", lambda _: _module("on_ray_serve")),
    Peer("Mosec", lambda port: [*_module("on_mosec"), "--port", port, "--timeout", "60000"], path="/inference"),
)


@dataclass(slots=True)
class Cell:
    """What one server did with one kind of call: images a second in each round, and what failed."""

    images_per_s: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def typical(self) -> float:
        """Returns the median of the rounds."""
        return median(self.images_per_s)


@dataclass(slots=True)
class Beside:
    """A peer, and camserve measured in turns with it; cells by server and kind. `memory_mb` is all the peer takes."""

    cells: dict[tuple[str, str, bool], Cell] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)

    def ratio(self, way: str, name: str, model: str, cam: bool) -> float:
        """Returns how many times the peer's images a second camserve has: the median of the rounds' own ratios."""
        ours, theirs = self.cells[way, model, cam], self.cells[name, model, cam]
        return median(one / other for one, other in zip(ours.images_per_s, theirs.images_per_s, strict=True))


class RunningPeer:
    """A peer's processes."""

    def __init__(self, peer: Peer, model: str, folder: Path, weights: Path) -> None:
        """Starts it; it may take a while until it answers."""
        self.peer = peer
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        # Some write beside the program, or into the home folder.
        folder.mkdir(parents=True)
        environment = os.environ | {
            MODEL: model,
            PORT: str(self.port),
            SHAPES_WEIGHTS: str(weights),
            "HOME": str(folder),
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                peer.command(str(self.port)),
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def memory_mb(self) -> float:
        """Returns what all its processes take, a page of a file once."""
        return memory(descendants(self._process.pid)).once_mb

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stops its processes meanwhile: some poll while they have nothing to do."""
        pids = descendants(self._process.pid)
        _send(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(pids, signal.SIGCONT)

    def __enter__(self) -> Self:
        """Waits until its method is there; raises RuntimeError where it ends or takes too long."""
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(OSError, http.client.HTTPException):
                if self._status() not in (404, 503):
                    return self
            time.sleep(0.2)
        self._close()
        raise RuntimeError(f"{self.peer.name} did not start:\n{self._log.read_text(errors='replace')[-3000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything that it started."""
        self._close()
        if error is not None:
            error.add_note(f"{self.peer.name}:\n{self._log.read_text(errors='replace')[-3000:]}")

    def _status(self) -> int:
        """Returns how it answers to a question that is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_STARTED_WITHIN_S)
        with closing(connection):
            connection.request("POST", self.peer.path, b"{}", {"Content-Type": "application/json"})
            return connection.getresponse().status

    def _close(self) -> None:
        # Once it has ended its number may be somebody else's.
        started = descendants(self._process.pid) if self._process.poll() is None else []
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOPPED_WITHIN_S)
        _send(started, signal.SIGKILL)
        self._process.wait()


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def measure_beside(
    service: Service, folder: Path, picture: Path, weights: Path, *, rounds: int, report: Callable[[str], None]
) -> dict[str, Beside]:
    """Returns every peer beside camserve, the ways in turns; one peer and one network at a time."""
    found: dict[str, Beside] = {}
    with Driver("load", folder) as load:
        load.hello()
        for peer in PEERS:
            found[peer.name] = beside = Beside()
            for model in (RESNET, SHAPES):
                report(f"{peer.name}, {model}")
                with RunningPeer(peer, model, folder / f"{peer.name}-{model}", weights) as running:
                    _measure(service, running, load, picture, model, beside, rounds)
                    beside.memory_mb[model] = running.memory_mb()
    return found


def _measure(
    service: Service, running: RunningPeer, load: Driver, picture: Path, model: str, beside: Beside, rounds: int
) -> None:
    peer = running.peer
    ways: dict[str, dict[str, Any]] = {
        GRPC: {"way": "grpc", "target": service.grpc_target, "token": service.token},
        JSON: {"way": "json", "port": service.edge_port, "token": service.token},
        peer.name: {"way": "peer", "port": running.port, "path": peer.path, "wrapped": peer.wrapped},
    }
    for number in range(rounds):
        for cam in (True, False):
            for way in ways if number % 2 == 0 else reversed(ways):
                slow = model == RESNET and way == peer.name
                seconds = 10.0 if slow and cam else 3.0
                with nullcontext() if way == peer.name else running.standing_still():
                    sample = load.ask(
                        picture=str(picture),
                        model=model,
                        cam=cam,
                        overlay=True,
                        concurrency=_CALLERS,
                        warm_up_s=seconds / 3,
                        seconds=seconds,
                        **ways[way],
                    )
                cell = beside.cells.setdefault((way, model, cam), Cell())
                cell.images_per_s.append(1000 / sample["ms_per_image"])
                cell.p50_ms.append(sample["p50_ms"])
                cell.errors += Counter(sample["errors"])
