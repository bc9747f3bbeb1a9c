"""Asks pip-audit for known vulnerabilities of every package in the locks.

Ends with 1 where there is one that `requirements/advisories.toml` does not leave aside, and where an entry of that list
is past its day. Where the advisories cannot be reached, wholly or for some packages, it says so and never that all is
well; `--must-run` makes that a failure.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from release.lock import FOLDER, pins, wanted

# Where pip-audit asks, one after the other.
SERVICES = ("pypi", "osv")


@dataclass(frozen=True, slots=True)
class Ignored:
    """An advisory that is left aside until a day, which is the last."""

    id: str
    package: str
    why: str
    until: datetime.date


@dataclass(frozen=True, slots=True)
class Verdict:
    """What pip-audit found: `found` must be dealt with, of `unknown` packages nothing is known."""

    found: tuple[str, ...]
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]
    known: int


def ignored() -> list[Ignored]:
    """Returns what `requirements/advisories.toml` leaves aside."""
    said = tomllib.loads((FOLDER / "advisories.toml").read_text())
    return [Ignored(**each) for each in said["ignored"]]


def judge(report: dict[str, Any], leave: Iterable[Ignored], today: datetime.date) -> Verdict:
    """Reads a report of pip-audit; what is left aside past its day counts."""
    valid = {(each.package, each.id) for each in leave if today <= each.until}
    found: list[str] = []
    left: list[str] = []
    unknown: list[str] = []
    known = 0
    for package in report["dependencies"]:
        if "skip_reason" in package:
            unknown.append(package["name"])
            continue
        known += 1
        for advisory in package["vulns"]:
            names = {advisory["id"], *advisory["aliases"]}
            fixed = ", ".join(advisory["fix_versions"]) or "no version"
            line = f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}"
            (left if any((package["name"], name) in valid for name in names) else found).append(line)
    return Verdict(tuple(found), tuple(left), tuple(unknown), known)


def rounds() -> list[list[str]]:
    """Returns every pin of every lock, for all platforms, in lists in which no package is twice."""
    versions: dict[str, list[str]] = {}
    for name, version in sorted({pin for lock in wanted() for pin in pins(lock)}):
        versions.setdefault(name, []).append(version)
    deepest = max(map(len, versions.values()))
    return [[f"{name}=={of[turn]}" for name, of in versions.items() if turn < len(of)] for turn in range(deepest)]


def main() -> None:
    """Audits the locks and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--must-run", action="store_true", help="fail where the advisories cannot be reached")
    must_run = parser.parse_args().must_run
    today, leave = datetime.datetime.now(datetime.UTC).date(), ignored()
    past = [each for each in leave if each.until < today]
    for each in past:
        print(f"{each.id} was to be left aside until {each.until}: decide again", file=sys.stderr)
    # One package tells whether a service answers at all.
    service = next((each for each in SERVICES if ask(each, [[rounds()[0][0]]], leave, today)), None)
    verdict = ask(service, rounds(), leave, today) if service else None
    if verdict is None:
        print("the advisories are out of reach: the audit was NOT RUN", file=sys.stderr)
        sys.exit(bool(past) or must_run)
    for line in verdict.ignored:
        print(f"left aside: {line}")
    for line in verdict.found:
        print(line, file=sys.stderr)
    if verdict.unknown:
        print(f"NOT RUN for {', '.join(verdict.unknown)}: nothing is known of these", file=sys.stderr)
    print(f"{verdict.known} packages looked at, {len(verdict.found)} vulnerabilities")
    sys.exit(bool(past or verdict.found) or (must_run and bool(verdict.unknown)))


def ask(service: str, lists: list[list[str]], leave: Iterable[Ignored], today: datetime.date) -> Verdict | None:
    """Returns what a service knows of the pins, or None where it does not answer or knows none of them."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--format", "json"]
        command += ["--progress-spinner", "off", "--timeout", "10", "--disable-pip", "--no-deps"]
        for turn, each in enumerate(lists):
            path = Path(folder) / f"{turn}.txt"
            path.write_text("\n".join(each))
            command += ["--requirement", str(path)]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    # It ends with 1 both where it finds something and where it cannot ask.
    try:
        verdict = judge(json.loads(answer.stdout), leave, today)
    except ValueError:
        return None
    return verdict if verdict.known else None


if __name__ == "__main__":
    main()
