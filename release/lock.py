"""Writes the locks in `requirements/`: every package that is installed, with its version and the hashes of its files.

One resolution over all that any of the projects asks for decides the versions, so that the locks agree with each other;
it holds for every Python and platform below, and the locks of `run` and `dev` are tried on each of them: each package
has a wheel there, but for those of `SOURCES`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# As old as Envoy's wheel allows.
PLATFORMS = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31", "aarch64-apple-darwin")
MACOS = "15.0"
# Have no wheels, and so run code of theirs as they are installed: nothing else may.
SOURCES = ("grad-cam", "pyvips")
# What those need to build with, and hatchling for editable installs. The locks hold it, too: nothing is built apart.
BUILDERS = ("cffi", "editables", "pkgconfig", "setuptools>=77", "wheel")
HEAD = "# Written by `make lock`, for:"


def wanted() -> dict[str, list[str]]:
    """Returns what each lock must hold, by its name, as the projects ask for it."""
    server, client, kit = (_project(folder) for folder in (".", "clients/python", "conformance"))
    extras = server["project"]["optional-dependencies"]
    of_client = [*client["project"]["dependencies"], *client["project"]["optional-dependencies"]["images"]]
    with_command = [*of_client, *_others(client["project"]["optional-dependencies"]["cli"])]
    of_server, of_kit = server["project"]["dependencies"], kit["project"]["dependencies"]
    return {
        "build": [*server["build-system"]["requires"], *BUILDERS],
        "run": of_server,
        "dev": _once([*of_server, *extras["dev"], *with_command, *of_kit]),
        "client": with_command,
        "conformance": of_kit,
        **{name: asked for name, asked in extras.items() if name != "dev"},
    }


def head(asked: Iterable[str]) -> str:
    """Returns the lines that a lock begins with, which say what it was made for."""
    wheels = ["--only-binary :all:", *(f"--no-binary {name}" for name in SOURCES)]
    return "\n".join([HEAD, *(f"#   {requirement}" for requirement in asked), *wheels, ""])


def pins(name: str) -> Iterator[tuple[str, str]]:
    """Yields the name and the version of every line of a lock, whatever platform it is for."""
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        if found := re.match(r"([a-z0-9-]+)==([^ ;]+)", line):
            yield found[1], found[2]


def write(*, upgrade: bool) -> None:
    """Writes every lock; versions that still satisfy stay as they are, unless `upgrade`."""
    locks = wanted()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.txt"
        known = [] if upgrade else [(FOLDER / f"{name}.txt") for name in locks]
        whole.write_text("\n".join(path.read_text() for path in known if path.exists()))
        _compile("all", _once(each for asked in locks.values() for each in asked), whole)
        for name, asked in locks.items():
            part = Path(folder) / f"{name}.txt"
            _compile(name, asked, part, "--constraint", f"../{whole.name}")
            pins = part.read_text().replace(f"    #   -c ../{whole.name}\n", "")
            (FOLDER / f"{name}.txt").write_text(head(asked) + pins)


def try_everywhere(name: str) -> None:
    """Raises CalledProcessError where a package of the lock has no wheel on one of the platforms."""
    for python in PYTHONS:
        for platform in PLATFORMS:
            print(f"{name}: Python {python} on {platform}", flush=True)
            command = [
                *("pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes"),
                *("--target", str(ROOT / "build" / "none"), "--python-version", python, "--python-platform", platform),
                *("--requirements", str(FOLDER / f"{name}.txt")),
            ]
            _uv(*command, cwd=FOLDER)


def main() -> None:
    """Writes the locks and tries them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that are allowed")
    parser.add_argument("--only-try", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    if not arguments.only_try:
        write(upgrade=arguments.upgrade)
    for name in ("run", "dev"):
        try_everywhere(name)


def _compile(name: str, asked: Iterable[str], to: Path, *options: str) -> None:
    # A project of its own, so that the lock says "via NAME (pyproject.toml)" and no path of this machine.
    project = to.parent / name
    project.mkdir()
    lines = "".join(f"  {requirement!r},\n" for requirement in asked)
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "0"\nrequires-python = ">={PYTHONS[0]}"\ndependencies = [\n{lines}]\n'
    )
    quiet = ("--quiet", "--no-header", "--no-emit-index-url", "--no-emit-find-links")
    where = ("--output-file", str(to))
    _uv("pip", "compile", "--universal", "--generate-hashes", *quiet, *where, *options, "pyproject.toml", cwd=project)


def _uv(*arguments: str, cwd: Path) -> None:
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": MACOS}
    subprocess.run(
        [sys.executable, "-m", "uv", *arguments], cwd=cwd, env=environment, stdout=subprocess.DEVNULL, check=True
    )


def _project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())


def _others(requirements: Iterable[str]) -> list[str]:
    return [each for each in requirements if not each.startswith("camserve")]


def _once(requirements: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(requirements))


if __name__ == "__main__":
    main()
