"""Runs the benchmark: `python -m benchmarks [--quick] [--only SECTION] [--rounds N] [--precision P] [--out FILE]`."""

from __future__ import annotations

import argparse
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from benchmarks import compared, machine, on_ray, replicas, sections
from benchmarks.against_peers import PYTHON as PEERS_PYTHON
from benchmarks.report import table
from benchmarks.sections import Findings, Place, Plan
from benchmarks.service import RESNET, SHAPES, Service, write_models
from camserve_server.base import bundle
from camserve_server.engine.manifest import Precision

# Those of the second group share one running stack.
_ALONE: dict[str, Callable[[Place, Plan], Findings]] = {
    "footprint": sections.footprint,
    "stages": sections.stages,
    "growth": sections.growth,
    "queue": sections.queue,
    "events": sections.events,
    "uploads": sections.uploads,
    "huge": sections.huge,
    "telemetry": sections.telemetry,
    "replicas": replicas.replicas,
    "ray": on_ray.ray,
}
_ON_SERVICE: dict[str, Callable[[Place, Plan, Service], Findings]] = {
    "throughput": compared.throughput,
    "peers": compared.peers,
    "edge": sections.edge,
    "costs": sections.costs,
    "jobs": sections.jobs,
}

# A first impression does without.
_LONG = ("growth", "peers")
# 32 callers at once wait longer for resnet50 than a service with default settings lets them.
_PATIENT = {"CAMSERVE_QUEUE_WAIT_S": "60"}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measures camserve on this machine.")
    parser.add_argument("--quick", action="store_true", help="a first impression in under 90 s")
    parser.add_argument("--only", choices=(*_ALONE, *_ON_SERVICE), action="append", help="one section; may be repeated")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of the sections that have any; default 3")
    parser.add_argument("--precision", choices=get_args(Precision), default="float32", help="what the models work in")
    parser.add_argument("--out", type=Path, default=None, help="receives every figure as JSON")
    return parser.parse_args()


def _progress(started: float, text: str) -> None:
    print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)


def _everything(*, quick: bool) -> list[str]:
    installed = {"ray": importlib.util.find_spec("ray") is not None, "peers": PEERS_PYTHON.exists()}
    return [name for name in (*_ALONE, *_ON_SERVICE) if installed.get(name, True) and not (quick and name in _LONG)]


def _run(place: Place, plan: Plan, chosen: list[str]) -> dict[str, Findings]:
    found = {name: run(place, plan) for name, run in _ALONE.items() if name in chosen}
    if shared := [name for name in _ON_SERVICE if name in chosen]:
        place.progress("starting the stack with shapes and resnet50")
        with Service(place.folder / "service", place.models_dir, _PATIENT) as service:
            found |= {name: _ON_SERVICE[name](place, plan, service) for name in shared}
    return found


def main() -> None:
    """Measures, prints the tables, then the verdicts."""
    options = _options()
    # As Ctrl-C does: leaves the `with` blocks that end the stack and the other processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = Plan(rounds=options.rounds or (1 if options.quick else 3), quick=options.quick, precision=options.precision)
    started = time.monotonic()
    busy = [machine.busy_cores()]
    print(machine.describe())
    with TemporaryDirectory(prefix="camserve-bench-") as name:
        folder = Path(name)
        shapes = bundle.MODELS / SHAPES
        models_dir = write_models(folder / "models", shapes, [SHAPES, RESNET], options.precision)
        place = Place(folder, models_dir, shapes, partial(_progress, started))
        found = _run(place, plan, options.only or _everything(quick=options.quick))
    busy.append(machine.busy_cores())
    verdicts = [verdict for findings in found.values() for verdict in findings.verdicts]
    print(table("Targets", ("figure", "measured", "target", ""), [verdict.row() for verdict in verdicts]))
    print(
        f"\nOther programs kept {busy[0]:.1f} cores busy before and {busy[1]:.1f} after; with more than a few tenths,"
        f" only ratios mean anything. {plan.rounds} rounds, {time.monotonic() - started:.0f} s."
    )
    if options.out:
        document = {
            "machine": machine.describe(),
            "busy_cores": busy,
            "rounds": plan.rounds,
            "precision": options.precision,
            "targets": [{**asdict(verdict), "passes": verdict.passes} for verdict in verdicts],
            **{name: findings.figures for name, findings in found.items()},
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
