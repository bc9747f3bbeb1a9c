"""Records exchanges anew: `python -m tests.compat.record EDGE_URL [--write] [--only NAME]`.

Plays the requests of first_release.json against a running stack, whose settings the environment names, and says where
the answers have other shapes. Only with --write does it put these shapes in the place of those that are kept. They
are promises to callers: write over one only to record a new exchange, or after deciding to break that promise.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from tests.compat.exchanges import RECORDED, Caller, differences, play, shape_of


def record(edge_url: str, *, only: str | None, write: bool) -> int:
    """Plays the exchanges, all or one; returns how many have no answer yet or another one than is kept."""
    document = json.loads(RECORDED.read_text())
    exchanges: dict[str, dict[str, Any]] = document["exchanges"]
    caller = Caller(edge_url, _camserve)
    differing = 0
    for name in [only] if only else exchanges:
        answer = play(caller, exchanges, name)
        kept = exchanges[name].get("answer")
        found = differences(kept, answer) if kept else ["is not recorded yet"]
        differing += bool(found)
        for difference in found:
            print(f"{name}: {difference}")
        if write:
            exchanges[name]["answer"] = shape_of(answer)
    if write:
        RECORDED.write_text(json.dumps(document, indent=1) + "\n")
    return differing


def _camserve(*arguments: str) -> str:
    command = [sys.executable, "-m", "camserve_server.cli.app", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("edge_url")
    parser.add_argument("--write", action="store_true", help="keep the answers' shapes")
    parser.add_argument("--only", help="one exchange")
    options = parser.parse_args()
    sys.exit(min(1, record(options.edge_url, only=options.only, write=options.write)))
