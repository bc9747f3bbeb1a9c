"""Sections of the benchmark in which the service stands beside something else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from math import nan
from statistics import median
from typing import Any

from benchmarks import against_peers, picture
from benchmarks.against_peers import KINDS, Beside, measure_beside
from benchmarks.driver import Driver
from benchmarks.report import Verdict, number, table
from benchmarks.sections import Findings, Place, Plan
from benchmarks.service import RESNET, Service
from benchmarks.throughput import (
    BARE,
    CALLERS,
    GRPC,
    HANDWRITTEN,
    JSON,
    UPLOAD,
    Cell,
    Measured,
    Round,
    Throughput,
    cells,
)

_PEER_WAYS = (against_peers.GRPC, against_peers.JSON)


def throughput(place: Place, plan: Plan, service: Service) -> Findings:
    """Bare pipeline, service and hand-written service."""
    place.progress("starting the bare pipeline and the hand-written service")
    with (
        Driver("pipeline", place.folder, place.environment("pipeline") | {"OMP_WAIT_POLICY": "PASSIVE"}) as bare,
        Driver("handwritten", place.folder) as handwritten,
        Driver("load", place.folder) as load,
    ):
        comparison = Throughput(service, bare, handwritten, load, place.photo())
        measured = comparison.run(list(cells(plan.rounds, quick=plan.quick)), plan.rounds, place.progress)
    ways = (BARE, GRPC, JSON, UPLOAD, HANDWRITTEN)
    rows = [
        (cell.title, *(number(found.typical(way, lambda one: one.ms_per_image)) for way in ways))
        for cell, found in measured.items()
    ]
    print(table("Throughput, ms per image", ("load", *ways), rows))
    rows = [
        (cell.title, *(number(found.throughput_ratio(way, BARE)) for way in ways[1:4]))
        for cell, found in measured.items()
    ]
    print(table("Throughput, share of the bare pipeline's", ("load", *ways[1:4]), rows))
    rows = [
        (cell.title, way, *_processor_row(found, way))
        for cell, found in measured.items()
        for way in cell.ways
        if cell.concurrency == 8
    ]
    header = ("load", "way", "server", "workers", "Envoy", "callers", "images per batch")
    print(table("Processor time, ms per image", header, rows))
    for cell, found in measured.items():
        for way, one in ((way, one) for way, rounds in found.rounds.items() for one in rounds if one.errors):
            print(f"\n{cell.title}, {way}: failed calls: {one.errors}")
    figures = [{**_named(cell), **asdict(found)} for cell, found in measured.items()]
    return Findings(figures, list(_throughput_verdicts(measured)))


def peers(place: Place, plan: Plan, service: Service) -> Findings:
    """Other servers, each beside the service."""
    photo = place.folder / "small.jpg"
    photo.write_bytes(picture.photo(500, 375))
    weights = next(place.shapes.glob("*/*.safetensors"))
    found = measure_beside(service, place.folder, photo, weights, rounds=plan.rounds, report=place.progress)
    titles = [f"{model}, {'with CAM' if cam else 'no CAM'}" for model, cam in KINDS]
    rows = [
        (name, *(number(one.cells[name, *kind].typical()) for kind in KINDS), number(one.memory_mb[RESNET]))
        for name, one in found.items()
    ]
    for way in _PEER_WAYS:
        typical = [median(one.cells[way, *kind].typical() for one in found.values()) for kind in KINDS]
        rows.append((way, *map(number, typical), ""))
    print(table("Images a second, 8 callers", ("server", *titles, "MB with resnet50"), rows))
    rows = [
        (f"{way} / {name}", *(number(one.ratio(way, name, *kind)) for kind in KINDS))
        for name, one in found.items()
        for way in _PEER_WAYS
    ]
    print(table("Images a second, ratio", ("servers", *titles), rows))
    for name, one in found.items():
        for (way, model, cam), cell in one.cells.items():
            if cell.errors:
                print(f"\n{way} beside {name}, {model}, {'with' if cam else 'no'} CAM: failed calls: {cell.errors}")
    figures = {name: {"memory_mb": one.memory_mb, "cells": list(_as_figures(one))} for name, one in found.items()}
    targets = zip(KINDS, titles, (5.0 if plan.precision == "float32" else 8.0, 2.0, 8.0, 1.0), strict=True)
    verdicts = [
        Verdict(
            f"service / best peer, gRPC, {title}",
            min(one.ratio(against_peers.GRPC, name, *kind) for name, one in found.items()),
            target,
            at_least=True,
        )
        for kind, title, target in targets
    ]
    return Findings(figures, verdicts)


def _as_figures(beside: Beside) -> Iterator[dict[str, Any]]:
    for (way, model, cam), cell in beside.cells.items():
        yield {"server": way, "model": model, "cam": cam, **asdict(cell)}


def _processor_row(found: Measured, way: str) -> list[str]:
    # Neither the bare pipeline nor the hand-written server has a role of camserve's.
    parts = [("replica", "other"), ("imaging worker",), ("Envoy",), (CALLERS,)]
    cpu_ms = [found.typical(way, partial(_cpu_ms, roles)) for roles in parts]
    return [number(value or nan) for value in (*cpu_ms, found.typical(way, lambda one: one.images_per_batch))]


def _cpu_ms(roles: tuple[str, ...], one: Round) -> float:
    return sum(one.cpu_ms.get(role, 0.0) for role in roles)


def _named(cell: Cell) -> dict[str, Any]:
    return {"model": cell.model, "cam": cell.cam, "concurrency": cell.concurrency}


def _throughput_verdicts(measured: dict[Cell, Measured]) -> list[Verdict]:
    verdicts = []
    for cell, found in measured.items():
        if cell.model != RESNET or cell.concurrency != 8:
            continue
        kind = "with CAM" if cell.cam else "no CAM"
        name = f"service / bare pipeline, gRPC, resnet50, {kind}, 8 at once"
        verdicts.append(Verdict(name, found.throughput_ratio(GRPC, BARE), 0.90, at_least=True))
        if HANDWRITTEN in cell.ways:
            name = f"service / hand-written, resnet50, {kind}, 8 at once"
            verdicts.append(Verdict(name, found.throughput_ratio(GRPC, HANDWRITTEN), 4.0, at_least=True))
    return verdicts
