"""What became of a model's classes from one list of labels to another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine
from camserve_server.engine.folders import find_folders
from camserve_server.engine.labels import Label, published_labels


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list has a class, and what it calls it for people."""

    index: int
    label: str


@dataclass(frozen=True, slots=True)
class MappedClass:
    """A class in the list before and the one after; None where that has no such class."""

    id: str
    before: Place | None
    after: Place | None

    @property
    def changes(self) -> tuple[str, ...]:
        """What became of it, in the contract's words."""
        if self.before is None:
            return ("added",)
        if self.after is None:
            return ("removed",)
        moved, renamed = self.before.index != self.after.index, self.before.label != self.after.label
        return ("moved",) * moved + ("renamed",) * renamed or ("kept",)


def map_labels(before: Sequence[Label], after: Sequence[Label]) -> list[MappedClass]:
    """Returns every class of either list once: those of `after` in its order, then those only `before` has in its."""
    old, new = _places(before), _places(after)
    ids = [*new, *(class_id for class_id in old if class_id not in new)]
    return [MappedClass(class_id, old.get(class_id), new.get(class_id)) for class_id in ids]


class LabelLists:
    """The lists of labels that versions of a model have or had."""

    def __init__(self, engine: Engine, models_dirs: tuple[Path, ...]) -> None:
        self._engine = engine
        self._models_dirs = models_dirs

    async def mapping(self, model: str, before: str, after: str) -> list[MappedClass]:
        """Returns what became of the classes between two labels_versions.

        Raises ApiError MODEL_NOT_FOUND, or MODEL_VERSION_NOT_FOUND for a labels_version of no version.
        """
        lists = self._loaded(model)
        if not {before, after} <= lists.keys():
            lists |= await asyncio.to_thread(self._in_folders, model)
        return map_labels(_find(lists, before, "from"), _find(lists, after, "to"))

    def _loaded(self, model: str) -> dict[str, Sequence[Label]]:
        versions = [version for version in self._engine.models() if version.name == model]
        return {version.labels_version: version.labels for version in versions if version.labels}

    def _in_folders(self, model: str) -> Mapping[str, Sequence[Label]]:
        """Reads the lists of versions that are not loaded too, as those that are retired."""
        folders = [folder for folder in find_folders(self._models_dirs) if folder.parent.name == model]
        if not folders and not any(version.name == model for version in self._engine.models()):
            raise ApiError(Reason.MODEL_NOT_FOUND)
        return published_labels(folders)


def _places(labels: Sequence[Label]) -> dict[str, Place]:
    return {label.id: Place(index, label.label) for index, label in enumerate(labels)}


def _find(lists: Mapping[str, Sequence[Label]], labels_version: str, field: str) -> Sequence[Label]:
    found = lists.get(labels_version)
    if found is None:
        raise ApiError(Reason.MODEL_VERSION_NOT_FOUND, "The model has no such labels_version.", field=field)
    return found
