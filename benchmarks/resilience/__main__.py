"""Runs the resilience benchmark: `make resilience ARGS="--quick --only SECTION --seed N --out FILE"`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.report import table
from benchmarks.resilience import (
    authentication,
    bulkheads,
    cancel,
    faults,
    health,
    hostile,
    limits,
    overload,
    rolling,
    routes,
)
from benchmarks.resilience.plan import Plan
from benchmarks.sections import Findings, Place
from benchmarks.service import RESNET, SHAPES, write_models
from camserve_server.base import bundle

SECTIONS: dict[str, Callable[[Place, Plan], Findings]] = {
    "limits": limits.measure,
    "authentication": authentication.measure,
    "overload": overload.measure,
    "bulkheads": bulkheads.measure,
    "faults": faults.measure,
    "rolling": rolling.measure,
    "routes": routes.measure,
    "cancel": cancel.measure,
    "hostile": hostile.measure,
    "health": health.measure,
}
# By itself, so that the others together take less than ten minutes.
ASKED_FOR = {"routes"}


def measure(plan: Plan, chosen: list[str], progress: Callable[[str], None]) -> dict[str, Findings]:
    """Runs the sections one after the other, each on a system of its own, and prints their tables."""
    with TemporaryDirectory(prefix="camserve-resilience-") as name:
        folder = Path(name)
        shapes = bundle.MODELS / SHAPES
        place = Place(folder, write_models(folder / "models", shapes, [SHAPES, RESNET]), shapes, progress)
        return {section: SECTIONS[section](place, plan) for section in chosen}


def main() -> None:
    """Measures, prints the tables, then the verdicts; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(prog="make resilience", description="What the service does under stress.")
    parser.add_argument("--quick", action="store_true", help="a first impression")
    parser.add_argument(
        "--only", choices=SECTIONS, action="append", help="one section, of `routes` the only way; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=1, help="decides every choice made at random")
    parser.add_argument("--out", type=Path, default=None, help="receives every figure as JSON")
    options = parser.parse_args()
    # As Ctrl-C does: leaves the `with` blocks that end the stack and the other processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    print(f"{machine.describe()}; seed {options.seed}")
    found = measure(
        Plan(options.seed, options.quick),
        options.only or [name for name in SECTIONS if name not in ASKED_FOR],
        progress,
    )
    verdicts = [verdict for findings in found.values() for verdict in findings.verdicts]
    print(table("Targets", ("figure", "measured", "target", ""), [verdict.row() for verdict in verdicts]))
    print(f"\n{time.monotonic() - started:.0f} s.")
    if options.out:
        document = {
            "machine": machine.describe(),
            "seed": options.seed,
            "targets": [{**asdict(verdict), "passes": verdict.passes} for verdict in verdicts],
            **{name: findings.figures for name, findings in found.items()},
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    sys.exit(not all(verdict.passes for verdict in verdicts))


if __name__ == "__main__":
    main()
