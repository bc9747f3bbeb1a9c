"""Pictures of which the class is known: a folder with a subfolder for each class, or a CSV file."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from camserve_server.base.errors import OperatorError

_COLUMNS = ("image", "class")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """A picture's file, and the index of its class."""

    path: Path
    index: int


def find_labelled(source: Path, class_ids: Sequence[str]) -> list[LabelledPicture]:
    """Returns the pictures of a folder or a CSV file, in the order of their paths.

    A folder has a subfolder named by each class id, the pictures in it at any depth; what begins with a dot is left
    out. A CSV file has the columns `image`, a path from the file's own folder, and `class`, a class id. Raises
    OperatorError for anything else.
    """
    index = {class_id: number for number, class_id in enumerate(class_ids)}
    if source.is_dir():
        found = _in_folder(source, index)
    elif source.is_file():
        found = _in_csv(source, index)
    else:
        raise OperatorError(f"{source} is neither a folder nor a CSV file")
    if not found:
        raise OperatorError(f"{source} names no picture")
    return sorted(found, key=lambda picture: picture.path)


def _in_folder(source: Path, index: Mapping[str, int]) -> list[LabelledPicture]:
    folders = [each for each in source.iterdir() if each.is_dir() and not each.name.startswith(".")]
    if not folders:
        raise OperatorError(f"{source} has no subfolders: one named by each class id is needed, such as {some(index)}")
    _check_classes(source, (folder.name for folder in folders), index)
    return [
        LabelledPicture(path, index[folder.name])
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _in_csv(source: Path, index: Mapping[str, int]) -> list[LabelledPicture]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise OperatorError(f"{source} is no CSV file with the columns {' and '.join(_COLUMNS)}")
            rows = [(row["image"] or "", row["class"] or "") for row in reader]
    except (UnicodeDecodeError, csv.Error):
        raise OperatorError(f"{source} is no CSV file in UTF-8") from None
    _check_classes(source, (class_id for _, class_id in rows), index)
    pictures = {source.parent / image: index[class_id] for image, class_id in rows}
    if len(pictures) < len(rows):
        raise OperatorError(f"{source} names a picture twice")
    missing = [str(path) for path in pictures if not path.is_file()]
    if missing:
        raise OperatorError(f"{source} names pictures that are not there: {some(missing)}")
    return [LabelledPicture(path, number) for path, number in pictures.items()]


def _check_classes(source: Path, named: Iterable[str], index: Mapping[str, int]) -> None:
    unknown = sorted(set(named) - index.keys())
    if unknown:
        raise OperatorError(
            f"{source} names classes that the model does not have: {some(unknown)}; its ids are such as {some(index)}"
        )


def some(words: Iterable[str]) -> str:
    """Returns the first few words, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(word or "(empty)" for word in listed[:_SHOWN]) + more
