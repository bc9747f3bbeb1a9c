"""The classes of a model: ids and labels in index order."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from camserve_server.engine.manifest import UnloadableError

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


@cache
def imagenet_labels() -> tuple[Label, ...]:
    """Returns the 1,000 classes: WordNet ids, and labels as torchvision's weights name them."""
    from torchvision.models import ResNet18_Weights

    ids = files("camserve_server.engine").joinpath("data/imagenet_wnids.txt").read_text("ascii").split()
    words = ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    return tuple(Label(id_, word) for id_, word in zip(ids, words, strict=True))
