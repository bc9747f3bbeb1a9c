"""The models that the replica has: every version found in the model folders, by name and alias."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.manifest import FILE_NAME, NAME_PATTERN, read_aliases
from camserve_server.engine.model import ModelVersion

# What a caller who names no version asks for.
_DEFAULT_ALIAS = "stable"


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
    return [found[key] for key in sorted(found, key=lambda key: (key[0], _version_order(key[1])))]


def earlier_versions(models_dirs: Iterable[Path], folder: Path) -> list[Path]:
    """Returns the folders of the same model whose versions come before `folder`'s, in order."""
    before = takewhile(lambda other: other != folder, find_folders(models_dirs))
    return [other for other in before if other.parent.name == folder.parent.name]


class Catalog:
    """Versions by name and version; an alias belongs to one version of a model.

    Where two versions claim an alias, the later one in version order has it, and the other is
    listed without.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._versions: dict[tuple[str, str], ModelVersion] = {}
        for folder in folders:
            self.set(ModelVersion(folder.parent.name, folder.name, "loading", read_aliases(folder)))

    def set(self, model: ModelVersion) -> None:
        """Adds a version or replaces what is known of it."""
        self._versions[model.key] = model
        for key, other in self._versions.items():
            if key[0] != model.name or key == model.key:
                continue
            shared = set(other.aliases) & set(model.aliases)
            if shared:
                older = min(other, model, key=lambda version: _version_order(version.version))
                kept = tuple(alias for alias in older.aliases if alias not in shared)
                self._versions[older.key] = replace(older, aliases=kept)
                structlog.get_logger().warning("two versions claim an alias", model=model.name, aliases=sorted(shared))

    def models(self) -> list[ModelVersion]:
        """Returns every version by name, then version; those that cannot serve as well."""
        return sorted(self._versions.values(), key=lambda model: (model.name, _version_order(model.version)))

    def resolve(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns the version that serves.

        Raises ApiError MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, or MODEL_UNAVAILABLE with the
        reason in the detail `why`.
        """
        versions = [model for model in self._versions.values() if model.name == name]
        if not versions:
            raise ApiError(Reason.MODEL_NOT_FOUND)
        model = self._versions.get((name, version_or_alias)) or next(
            (model for model in versions if version_or_alias in model.aliases), None
        )
        if model is None:
            # Of a version whose manifest cannot be read nobody knows the aliases.
            if version_or_alias == _DEFAULT_ALIAS and not any(model.state == "ready" for model in versions):
                raise ApiError(Reason.MODEL_UNAVAILABLE, why=versions[-1].reason or versions[-1].state)
            raise ApiError(Reason.MODEL_VERSION_NOT_FOUND)
        if model.state != "ready":
            raise ApiError(Reason.MODEL_UNAVAILABLE, why=model.reason or model.state)
        return model


def _version_order(version: str) -> list[tuple[int, int, str]]:
    """Orders "2" before "10" and "1.9" before "1.10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|[^\d]+", version)]
