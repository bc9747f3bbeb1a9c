"""Throughput of the bare pipeline, the service and the hand-written service, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from math import isnan, nan
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.driver import Driver
from benchmarks.processes import by_role, cpu_s
from benchmarks.service import RESNET, SHAPES, Service

CALLERS = "callers"
BARE, GRPC, JSON, UPLOAD, HANDWRITTEN = "bare", "gRPC", "REST JSON", "REST upload", "hand-written"
# By concurrency. A batch of 8 takes a good part of a second.
_SLOW_SECONDS = {1: 1.2, 8: 2.5, 32: 2.0}
_WAY_OF_LOAD = {GRPC: "grpc", JSON: "json", UPLOAD: "upload", HANDWRITTEN: "grpc"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of load; `seconds` is how long one way is measured in one round."""

    model: str
    cam: bool
    concurrency: int
    seconds: float
    ways: tuple[str, ...]
    rounds: frozenset[int]

    @property
    def title(self) -> str:
        """The kind of load in words."""
        return f"{self.model}, {'with' if self.cam else 'no'} CAM, {self.concurrency} at once"


@dataclass(frozen=True, slots=True)
class Round:
    """One way measured once: see `window.Sample`; `cpu_ms` is processor time per image by role."""

    ms_per_image: float
    p50_ms: float
    images: int
    images_per_batch: float
    cpu_ms: dict[str, float]
    errors: dict[str, int]


@dataclass(slots=True)
class Measured:
    """The rounds of one cell, by way."""

    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def add(self, way: str, one: Round) -> None:
        """Adds one round of one way."""
        self.rounds.setdefault(way, []).append(one)

    def typical(self, way: str, read: Callable[[Round], float]) -> float:
        """Returns the median over the rounds of what `read` takes from each; not a number when there is none."""
        return _median(read(one) for one in self.rounds.get(way, []))

    def throughput_ratio(self, way: str, other: str) -> float:
        """Returns the throughput of `way` over that of `other`: the median of the rounds' own ratios."""
        pairs = zip(self.rounds.get(other, []), self.rounds.get(way, []), strict=True)
        return _median(theirs.ms_per_image / ours.ms_per_image for theirs, ours in pairs)


def _median(values: Iterable[float]) -> float:
    known = [value for value in values if not isnan(value)]
    return median(known) if known else nan


def cells(rounds: int, *, quick: bool) -> Iterator[Cell]:
    """Yields every kind of load; those at 8 run in every round, the others in the first and the last."""
    service = (BARE, GRPC, JSON, UPLOAD)
    for model in (RESNET, SHAPES):
        for cam in (True, False):
            for concurrency in _SLOW_SECONDS:
                if quick and not (concurrency == 8 and cam):
                    continue
                slow = model == RESNET
                compared = slow and cam and concurrency == 8
                yield Cell(
                    model,
                    cam,
                    concurrency,
                    seconds=_SLOW_SECONDS[concurrency] if slow else 0.8,
                    ways=(*service, HANDWRITTEN) if compared else service,
                    rounds=frozenset(range(rounds) if concurrency == 8 else {0, rounds - 1}),
                )


class Throughput:
    """Drives everything that is compared, one at a time."""

    def __init__(self, service: Service, bare: Driver, handwritten: Driver, load: Driver, picture: Path) -> None:
        self._service = service
        self._bare = bare
        self._handwritten = handwritten
        self._load = load
        self._picture = picture
        self._handwritten_target = str(handwritten.hello()["target"])
        bare.hello()
        load.hello()

    def run(self, kinds: list[Cell], rounds: int, report: Callable[[str], None]) -> dict[Cell, Measured]:
        """Measures every cell in every one of its rounds; the order of the ways turns round each time."""
        measured = {cell: Measured() for cell in kinds}
        for number in range(rounds):
            for cell in kinds:
                if number not in cell.rounds:
                    continue
                report(f"round {number + 1} of {rounds}: {cell.title}")
                for way in cell.ways if number % 2 == 0 else reversed(cell.ways):
                    measured[cell].add(way, self._measure(cell, way))
        return measured

    def _measure(self, cell: Cell, way: str) -> Round:
        pids = self._pids(way)
        cpu_before_s = {role: cpu_s(ids) for role, ids in pids.items()}
        batches_before = self._service.batches()
        order: dict[str, Any] = {
            "picture": str(self._picture),
            "model": cell.model,
            "cam": cell.cam,
            "concurrency": cell.concurrency,
            "warm_up_s": 0.25 * cell.seconds,
            "seconds": cell.seconds * (2 if way == HANDWRITTEN else 1),
        }
        sample = self._bare.ask(**order) if way == BARE else self._load.ask(**order, **self._address(way))
        answered = max(1, sample["answered"])
        return Round(
            ms_per_image=sample["ms_per_image"],
            p50_ms=sample["p50_ms"],
            images=sample["images"],
            images_per_batch=sample.get("images_per_batch") or _per_batch(batches_before, self._service.batches()),
            cpu_ms={role: (cpu_s(ids) - cpu_before_s[role]) * 1000 / answered for role, ids in pids.items()},
            errors=sample["errors"],
        )

    def _address(self, way: str) -> dict[str, Any]:
        target = self._handwritten_target if way == HANDWRITTEN else self._service.grpc_target
        return {
            "way": _WAY_OF_LOAD[way],
            "target": target,
            "port": self._service.edge_port,
            "token": self._service.token,
        }

    def _pids(self, way: str) -> dict[str, list[int]]:
        callers = {CALLERS: self._load.pids()}
        if way == BARE:
            return by_role(self._bare.pid)
        if way == HANDWRITTEN:
            return by_role(self._handwritten.pid) | callers
        return self._service.pids() | callers


def _per_batch(before: tuple[float, float], after: tuple[float, float]) -> float:
    """Returns images per batch between two readings of (batches, images)."""
    batches = after[0] - before[0]
    return (after[1] - before[1]) / batches if batches else nan
