"""Throughput of the bare pipeline, the service and the hand-written service, in interleaved rounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.driver import Driver
from benchmarks.processes import cpu_s
from benchmarks.service import RESNET, SHAPES, Service

BARE, GRPC, JSON, UPLOAD, HANDWRITTEN = "bare", "gRPC", "REST JSON", "REST upload", "hand-written"
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


@dataclass(slots=True)
class Measured:
    """The rounds of one cell, by way: ms per image, the callers' median wait, ms of processor time per image."""

    ms: dict[str, list[float]] = field(default_factory=dict)
    p50_ms: dict[str, list[float]] = field(default_factory=dict)
    cpu_ms: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    errors: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, way: str, sample: Mapping[str, Any], cpu_ms: dict[str, float]) -> None:
        """Adds one round of one way."""
        self.ms.setdefault(way, []).append(sample["ms_per_image"])
        self.p50_ms.setdefault(way, []).append(sample["p50_ms"])
        self.cpu_ms.setdefault(way, []).append(cpu_ms)
        if sample["errors"]:
            self.errors.setdefault(way, {}).update(sample["errors"])

    def median_ms(self, way: str) -> float:
        """Returns the median over the rounds of ms per image."""
        return median(self.ms.get(way, [math.nan]))

    def median_cpu_ms(self, way: str, *roles: str) -> float:
        """Returns the median over the rounds of the processor time per image of the roles, all when none is named."""
        rounds = self.cpu_ms.get(way, [])
        sums = [sum(ms for role, ms in one.items() if not roles or role in roles) for one in rounds]
        return median(sums) if sums else math.nan

    def throughput_ratio(self, way: str, other: str) -> float:
        """Returns the throughput of `way` over that of `other`: the median of the rounds' own ratios."""
        pairs = zip(self.ms.get(other, []), self.ms.get(way, []), strict=True)
        return median([theirs / ours for theirs, ours in pairs] or [math.nan])


def cells(rounds: int, *, quick: bool) -> Iterator[Cell]:
    """Yields every kind of load; those at 8 run in every round, the others in the first and the last."""
    service = (BARE, GRPC, JSON, UPLOAD)
    for model in (RESNET, SHAPES):
        for cam in (True, False):
            for concurrency in (1, 8, 32):
                if quick and (concurrency != 8 or not cam):
                    continue
                slow = model == RESNET
                compared = slow and cam and concurrency == 8
                yield Cell(
                    model,
                    cam,
                    concurrency,
                    seconds=(2.5 if concurrency > 1 else 1.2) if slow else 0.8,
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
                    sample, cpu_ms = self._measure(cell, way)
                    measured[cell].add(way, sample, cpu_ms)
        return measured

    def _measure(self, cell: Cell, way: str) -> tuple[dict[str, Any], dict[str, float]]:
        pids = self._pids(way)
        before = {role: cpu_s(ids) for role, ids in pids.items()}
        order: dict[str, Any] = {
            "picture": str(self._picture),
            "model": cell.model,
            "cam": cell.cam,
            "concurrency": cell.concurrency,
            "warm_up_s": 0.3 * cell.seconds,
            "seconds": cell.seconds * (2 if way == HANDWRITTEN else 1),
        }
        if way == BARE:
            sample = self._bare.ask(**order)
        else:
            target = self._handwritten_target if way == HANDWRITTEN else self._service.grpc_target
            sample = self._load.ask(
                **order,
                way=_WAY_OF_LOAD[way],
                target=target,
                port=self._service.edge_port,
                token=self._service.token,
            )
        answered = max(1, sample["answered"])
        return sample, {role: (cpu_s(ids) - before[role]) * 1000 / answered for role, ids in pids.items()}

    def _pids(self, way: str) -> dict[str, list[int]]:
        if way == BARE:
            return {"pipeline": self._bare.pids()}
        if way == HANDWRITTEN:
            return {"server": self._handwritten.pids(), "callers": self._load.pids()}
        return {**self._service.pids(), "callers": self._load.pids()}
