"""The model folders: which versions lie there, and whether anything of one has changed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from camserve_server.engine.manifest import FILE_NAME, NAME_PATTERN

# Name and version.
Key = tuple[str, str]

_RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version lies; `signature` changes with every change of its files."""

    folder: Path
    signature: tuple[tuple[str, int, int, int], ...]
    retired: bool


def find_folders(models_dirs: Iterable[Path]) -> list[Path]:
    """Returns the `<name>/<version>` folders that hold a model.toml, by name, then version.

    A name and version found in two model folders counts in the first.
    """
    found: dict[tuple[str, str], Path] = {}
    for models_dir in models_dirs:
        for file in sorted(models_dir.glob(f"*/*/{FILE_NAME}")):
            folder = file.parent
            if re.match(NAME_PATTERN, folder.parent.name) and re.match(NAME_PATTERN, folder.name):
                found.setdefault((folder.parent.name, folder.name), folder)
    return [found[key] for key in sorted(found, key=lambda key: (key[0], version_order(key[1])))]


def earlier_versions(models_dirs: Iterable[Path], folder: Path) -> list[Path]:
    """Returns the folders of the same model whose versions come before `folder`'s, in order."""
    before = takewhile(lambda other: other != folder, find_folders(models_dirs))
    return [other for other in before if other.parent.name == folder.parent.name]


def version_order(version: str) -> list[tuple[int, int, str]]:
    """Orders "2" before "10" and "1.9" before "1.10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d]+", version)]


def find_places(models_dirs: Iterable[Path]) -> dict[Key, Place]:
    """Returns what `find_folders` does, by name and version, with what else is to be seen of each.

    A version is retired by a file `retired` in a folder of its name and version below any of the model folders, so
    that versions in a folder that cannot be written to can be retired too.
    """
    dirs = tuple(models_dirs)
    retired = {(file.parent.parent.name, file.parent.name) for each in dirs for file in each.glob(f"*/*/{_RETIRED}")}
    places: dict[Key, Place] = {}
    for folder in find_folders(dirs):
        key = (folder.parent.name, folder.name)
        places[key] = Place(folder, _signature(folder), key in retired)
    return places


def retire(models_dir: Path, name: str, version: str) -> None:
    """Marks a version as retired for everybody who reads `models_dir`, for good."""
    folder = models_dir / name / version
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{_RETIRED}"
    draft.write_text("This version answers no longer. Removing this file brings it back.\n")
    draft.replace(folder / _RETIRED)


def _signature(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    seen: list[tuple[str, int, int, int]] = []
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            try:
                status = file.stat()
            except OSError:
                # Gone between the listing and now: the next look sees another signature anyway.
                continue
            if name.lstrip(".") != _RETIRED:
                seen.append((str(file.relative_to(folder)), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(sorted(seen))
