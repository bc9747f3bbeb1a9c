"""`make chaos`: hurts every part of a system under load and checks from outside that it kept its promises."""

from __future__ import annotations

import argparse
import random
import sys

from tests.chaos.run import Plan, chaos

parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="order of the faults")
parser.add_argument("--kills", type=int, default=20, help="SIGKILLs for each component")
parser.add_argument("--pauses", type=int, default=5, help="SIGSTOPs for each component, up to 5 s long")
parser.add_argument("--restarts", type=int, default=3, help="SIGTERMs for each component")
asked = parser.parse_args()

print(f"seed {asked.seed}", flush=True)
report = chaos(
    Plan(asked.seed, asked.kills, asked.pauses, asked.restarts), lambda line: print(line, file=sys.stderr, flush=True)
)
for name, value in report.figures.items():
    print(f"{name:45} {value:>10,}")
for violation in report.violations[:20]:
    print(f"BROKEN: {violation[:400]}")
print(f"{len(report.violations)} promises broken")
sys.exit(bool(report.violations))
