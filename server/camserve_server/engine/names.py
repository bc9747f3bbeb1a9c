"""Names of new versions, and the aliases that they must not be mixed up with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from camserve_server.engine.folders import find_folders
from camserve_server.engine.manifest import DEFAULT_ALIAS, NAME_PATTERN, UnloadableError, read_aliases


def check_name(word: str, value: str) -> None:
    """Raises UnloadableError for what is no name of a model or version."""
    if not re.match(NAME_PATTERN, value):
        raise UnloadableError(f"{word} has 1 to 64 letters, digits or one of . _ -, the first a letter or digit")


def check_apart(models_dirs: Iterable[Path], name: str, version: str, aliases: Iterable[str] = ()) -> None:
    """Raises UnloadableError where a version of the model and an alias in its manifests would have one name."""
    if version == DEFAULT_ALIAS:
        raise UnloadableError(f"{DEFAULT_ALIAS} is an alias of every model, and no version's name")
    folders = [folder for folder in find_folders(models_dirs) if folder.parent.name == name]
    if holder := next((folder.name for folder in folders if version in read_aliases(folder)), None):
        raise UnloadableError(f"{version} is an alias of {name} {holder}, and no version's name")
    if taken := {version, *(folder.name for folder in folders)} & set(aliases):
        raise UnloadableError(f"{min(taken)} is a version of {name}, and no alias")
