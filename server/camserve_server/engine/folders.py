"""The model folders: which versions lie there, and whether anything of one has changed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from camserve_server.engine.catalog import Key, find_folders

_RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version lies; `signature` changes with every change of its files."""

    folder: Path
    signature: tuple[tuple[str, int, int, int], ...]
    retired: bool


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
