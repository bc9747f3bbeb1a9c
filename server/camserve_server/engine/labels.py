"""The classes of a model: ids and labels in index order, and the labels_version that names such a list."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from camserve_server.engine.manifest import UnloadableError, read_manifest

IMAGENET = "imagenet"


class Label(NamedTuple):
    """One class: the id that callers name it by, and the words for people."""

    id: str
    label: str


def read_labels(folder: Path, source: str) -> tuple[Label, ...]:
    """Returns the classes in index order from a JSON list in `folder`, or those of ImageNet.

    Raises UnloadableError when the file is missing, is no list of {"id", "label"}, or repeats an id.
    """
    if source == IMAGENET:
        return imagenet_labels()
    try:
        rows = json.loads((folder / source).read_text(encoding="utf-8"))
        labels = tuple(Label(str(row["id"]), str(row["label"])) for row in rows)
    except OSError:
        raise UnloadableError("the labels file cannot be read") from None
    except (ValueError, TypeError, KeyError):
        raise UnloadableError("the labels file is no list of {id, label}") from None
    if not labels or len({label.id for label in labels}) != len(labels):
        raise UnloadableError("the labels file is empty or repeats an id")
    return labels


def published_labels(folders: Iterable[Path]) -> dict[str, tuple[Label, ...]]:
    """Returns the list that each labels_version of one model names, `folders` being its versions in order.

    Of versions that disagree the earliest counts. Folders that cannot be read name nothing.
    """
    published: dict[str, tuple[Label, ...]] = {}
    for folder in folders:
        with suppress(UnloadableError):
            manifest = read_manifest(folder)
            published.setdefault(manifest.labels_version, read_labels(folder, manifest.labels))
    return published


def check_published(labels_version: str, labels: tuple[Label, ...], earlier: Iterable[Path]) -> None:
    """Raises UnloadableError where an earlier version of the model gave the labels_version to another list.

    Clients keep indices and labels under that name, so it never comes to mean something else.
    """
    published = published_labels(earlier).get(labels_version, labels)
    if published != labels:
        raise UnloadableError(
            f"labels_version {labels_version} names other labels in an earlier version: {_other(published, labels)}"
        )


def _other(published: tuple[Label, ...], labels: tuple[Label, ...]) -> str:
    """Says in what two lists differ."""
    before, after = ([label.id for label in each] for each in (published, labels))
    if before == after:
        return "classes have other labels"
    return "the same classes in another order" if sorted(before) == sorted(after) else "other classes"


@cache
def imagenet_labels() -> tuple[Label, ...]:
    """Returns the 1,000 classes: WordNet ids, and labels as torchvision's weights name them."""
    from camserve_server.engine.torchvision_models import find_weights

    ids = files("camserve_server.engine").joinpath("data/imagenet_wnids.txt").read_text("ascii").split()
    words = find_weights("resnet18", "IMAGENET1K_V1").meta["categories"]
    return tuple(Label(id_, word) for id_, word in zip(ids, words, strict=True))
