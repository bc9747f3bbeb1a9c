"""Compares the licence of every package that is installed from a lock with `requirements/licences.toml`.

Prints each package with its licence, and ends with 1 where one is neither allowed nor decided on, and where a decision
was made about another licence than the package has now.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import Distribution, distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from release.lock import FOLDER

# What runs, what develops, what single make targets add, and the tools of releases, which lie in a place of their own.
LISTS = {
    "run": ("run",),
    "dev": ("dev", "client", "conformance"),
    "extras": ("build", "deploy", "docs", "fuzz", "ray", "schemathesis", "web"),
    "tools": ("release",),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on packages whose names match `name`, and on which licence."""

    name: str
    licence: str
    why: str
    only_dev: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed of every package, what the words of metadata mean, and what was decided on single packages."""

    allowed: frozenset[str]
    words: dict[str, str]
    decisions: tuple[Decision, ...]

    def refusal(self, name: str, licence: str, *, runs: bool) -> str | None:
        """Returns why a package may not be installed, or None."""
        for decision in self.decisions:
            if fnmatch(name, decision.name):
                if decision.licence != licence:
                    return f"says {licence!r}, and what was decided was about {decision.licence!r}"
                return "may only be used in development" if decision.only_dev and runs else None
        return None if is_allowed(licence, self.allowed) else f"{licence!r} is not allowed, and nothing was decided"


def rules() -> Rules:
    """Returns what `requirements/licences.toml` says."""
    said = tomllib.loads((FOLDER / "licences.toml").read_text())
    decisions = tuple(Decision(**each) for each in said["decision"])
    return Rules(frozenset(said["allowed"]), said["words"], decisions)


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether an SPDX expression leaves a choice that consists of allowed licences only."""
    tokens = [token for token in re.split(r"\s+|([()])", expression) if token]
    verdict, rest = _either(tokens, frozenset(allowed))
    return verdict and not rest


def licence_of(distribution: Distribution, words: dict[str, str]) -> str:
    """Returns the SPDX expression of a package, or the words of its metadata where `words` does not know them."""
    metadata = distribution.metadata
    if expression := metadata.get_all("License-Expression"):
        return str(expression[0])
    # Some write the whole licence there.
    text = "".join(metadata.get_all("License") or []).strip()
    if text and "\n" not in text:
        return words.get(text, text)
    classifiers = [str(each) for each in metadata.get_all("Classifier") or [] if each.startswith("License :: ")]
    named = [words.get(name, name) for each in classifiers if (name := each.rpartition(" :: ")[2]) != "OSI Approved"]
    return " AND ".join(named) or "nothing"


def locked(name: str) -> Iterator[str]:
    """Yields the names of the packages of a lock that this platform installs."""
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate():
                yield canonicalize_name(requirement.name)


def main() -> None:
    """Prints the licences and what is wrong with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lists", nargs="+", choices=LISTS)
    lists = parser.parse_args().lists
    ours = rules()
    installed = {str(canonicalize_name(each.metadata["Name"])): each for each in distributions()}
    failed = 0
    for part in lists:
        names = sorted({name for lock in LISTS[part] for name in locked(lock)})
        for name in (name for name in names if name in installed):
            licence = licence_of(installed[name], ours.words)
            refusal = ours.refusal(name, licence, runs=part == "run")
            failed += refusal is not None
            print(f"{part}  {name}: {refusal or licence}", file=sys.stderr if refusal else sys.stdout)
        if absent := [name for name in names if name not in installed]:
            print(f"{part}: not installed here, and so not looked at: {', '.join(absent)}", file=sys.stderr)
            failed += len(absent) if part != "extras" else 0
    print(f"licences of {', '.join(lists)}: {failed or 'none'} not in order")
    sys.exit(failed > 0)


def _either(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    verdict, rest = _both(tokens, allowed)
    while rest[:1] == ["OR"]:
        other, rest = _both(rest[1:], allowed)
        verdict = verdict or other
    return verdict, rest


def _both(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    verdict, rest = _one(tokens, allowed)
    while rest[:1] == ["AND"]:
        other, rest = _one(rest[1:], allowed)
        verdict = verdict and other
    return verdict, rest


def _one(tokens: list[str], allowed: frozenset[str]) -> tuple[bool, list[str]]:
    if tokens[:1] == ["("]:
        verdict, rest = _either(tokens[1:], allowed)
        return (verdict, rest[1:]) if rest[:1] == [")"] else (False, [])
    if tokens[1:2] == ["WITH"]:
        return " ".join(tokens[:3]) in allowed, tokens[3:]
    return tokens[:1] != [] and tokens[0] in allowed, tokens[1:]


if __name__ == "__main__":
    main()
