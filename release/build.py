"""Builds the wheels and source archives of the last commit, each in several ways that must agree to the byte."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from release.lock import ROOT


@dataclass(frozen=True, slots=True)
class Project:
    """A project that is released; `folders` lie in its wheel as they are, `bundled` below `camserve_server/bundle`."""

    name: str
    folder: str
    lock: str
    folders: tuple[str, ...]
    bundled: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The name that its files begin with."""
        return self.name.replace("-", "_")


PROJECTS = (
    Project(
        "camserve",
        ".",
        "run",
        ("server/camserve_server", "gen/python/camserve", "gen/python/buf", "gen/python/envoy_ratelimit"),
        ("clients/web/site", "docs/api", "envoy", "models"),
    ),
    Project("camserve-client", "clients/python", "client", ("src/camserve_client",)),
    Project("camserve-conformance", "conformance", "conformance", ("src/camserve_conformance",)),
)


class ReleaseError(Exception):
    """What is to be released is not as it must be."""


def version() -> str:
    """Returns the version that pyproject.toml names."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def commit_time() -> int:
    """Returns when the last commit was made, in seconds, which is the time of every file in what is built."""
    return int(_git("log", "-1", "--format=%ct").decode())


def build(to: Path) -> list[Path]:
    """Builds every project into a folder; raises ReleaseError where two builds differ or files are amiss."""
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        once, again = (_tree(Path(folder)) for folder in (first, second))
        built = []
        for project in PROJECTS:
            wheel, source = _hatchling(once / project.folder, to)
            others = [*_hatchling(again / project.folder, Path(second) / "built")]
            others.append(_from_source(source, Path(second) / "unpacked"))
            for other in others:
                if other.read_bytes() != (to / other.name).read_bytes():
                    raise ReleaseError(f"two builds of {other.name} differ")
            check_wheel(wheel, project, once)
            built += [wheel, source]
    return built


def check_wheel(wheel: Path, project: Project, tree: Path) -> None:
    """Raises ReleaseError where a wheel lacks a file that is needed, holds one that is not, or holds another."""
    expected = dict(_expected(project, tree))
    with ZipFile(wheel) as archive:
        about = f"{project.file_name}-{version()}.dist-info/"
        held = {name: archive.read(name) for name in archive.namelist()}
        ours = {name for name in held if not name.startswith(about)}
        if amiss := sorted(ours ^ set(expected)):
            raise ReleaseError(f"{wheel.name} has too much or lacks: {', '.join(amiss)}")
        if altered := sorted(name for name in ours if held[name] != expected[name].read_bytes()):
            raise ReleaseError(f"{wheel.name} holds other files than the commit: {', '.join(altered)}")
        said = {name.removeprefix(about) for name in held} - ours
        if not {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"} <= said:
            raise ReleaseError(f"{wheel.name} says too little of itself: {', '.join(sorted(said))}")
        if f"\nVersion: {version()}\n" not in held[f"{about}METADATA"].decode():
            raise ReleaseError(f"{wheel.name} is not version {version()}")


def _expected(project: Project, tree: Path) -> Iterator[tuple[str, Path]]:
    root = tree / project.folder
    for folder in project.folders:
        for path in (root / folder).rglob("*"):
            if path.is_file():
                yield path.relative_to((root / folder).parent).as_posix(), path
    for folder in project.bundled:
        for path in (root / folder).rglob("*"):
            # Pages about the folders, and the edge's check of itself, which no server reads.
            if path.is_file() and path.suffix not in (".md", ".sh"):
                yield f"camserve_server/bundle/{path.relative_to(root).as_posix()}", path


def _tree(folder: Path) -> Path:
    """Lays the last commit into a folder, without what git does not know."""
    with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
        archive.extractall(folder / "tree", filter="data")
    return folder / "tree"


def _from_source(source: Path, folder: Path) -> Path:
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    return _hatchling(folder / source.name.removesuffix(".tar.gz"), folder / "built", "wheel")[0]


def _hatchling(project: Path, to: Path, *targets: str) -> list[Path]:
    """Builds a project with the hatchling of this environment; returns the wheel and the source archive."""
    to.mkdir(parents=True, exist_ok=True)
    there = set(to.iterdir())
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(to)]
    command += [part for target in targets or ("sdist", "wheel") for part in ("--target", target)]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(commit_time())}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"hatchling: {done.stderr or done.stdout}")
    return sorted(set(to.iterdir()) - there, key=lambda path: path.suffix != ".whl")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
