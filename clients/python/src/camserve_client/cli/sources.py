"""Images as a command line names them."""

from __future__ import annotations

import glob
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from camserve_client.contents import ImageSource, ImageUrl, StorageId

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
_LONGEST_ID = 128
_STORED = re.compile(r"img_[0-9A-Za-z]{16,40}")


def named(arguments: Iterable[str]) -> dict[str, ImageSource]:
    """Returns images by name: files, what is in folders, what patterns match, URLs, ids of uploads, and `-`, the input.

    Raises ValueError where a folder or a pattern has no image, FileNotFoundError for a file that is not there.
    """
    found: dict[str, ImageSource] = {}
    for argument in arguments:
        if argument == "-":
            found["-"] = sys.stdin.buffer
        elif argument.startswith(("https://", "http://")):
            found[argument] = ImageUrl(argument)
        elif _STORED.fullmatch(argument) and not Path(argument).exists():
            found[argument] = StorageId(argument)
        else:
            found |= {_id(path): path for path in _files(argument)}
    return found


def _id(path: Path) -> str:
    """Returns the name of a file, of which the service takes no more than its last characters."""
    name = str(path)
    return name if len(name) <= _LONGEST_ID else f"…{name[1 - _LONGEST_ID :]}"


def _files(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_file() or not (path.is_dir() or glob.has_magic(argument)):
        # Said before anything is sent: one wrong name must not end a batch half-way.
        path.stat()
        yield path
        return
    places = path.rglob("*") if path.is_dir() else map(Path, glob.iglob(argument, recursive=True))
    images = sorted(one for one in places if one.is_file() and one.suffix.lower() in _SUFFIXES)
    if not images:
        raise ValueError(f"{argument} has no images (JPEG, PNG, TIFF or BMP)")
    yield from images
