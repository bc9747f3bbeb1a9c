"""Images as a command line names them."""

from __future__ import annotations

import glob
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import cast

from camserve_client.cli.session import Session
from camserve_client.contents import ImageSource, ImageUrl, StorageId
from camserve_client.errors import CamserveError

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"})
_LONGEST_ID = 128
_URLS = ("https://", "http://")
_STORED = re.compile(r"img_[0-9A-Za-z]{16,40}")


@dataclass(frozen=True, slots=True)
class Found:
    """Images by name, of which those without a byte are not sent."""

    images: dict[str, ImageSource] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


def of(session: Session, arguments: Iterable[str]) -> Found:
    """Returns images by name, as `named` does; what is wrong ends the program.

    What is named twice is said, and so are empty files, unless there is nothing else.
    """
    found: dict[str, ImageSource] = {}

    def collect() -> Found:
        for argument in arguments:
            for name, source in named(argument).items():
                if name not in found:
                    found[name] = source
                elif found[name] == source:
                    session.hint(f"{name} is named twice, and sent once.", repeated=name)
                else:
                    raise ValueError(f"{name} is the end of two names: go nearer to the files, to name them shorter")
        empty = [name for name, source in found.items() if isinstance(source, Path) and _is_empty(source)]
        if empty and len(empty) == len(found):
            raise ValueError(f"{empty[0]} is empty" + (", and so is every other image" if empty[1:] else ""))
        return Found({name: source for name, source in found.items() if name not in empty}, empty)

    sorted_out = session.guarded(collect)
    for name in sorted_out.empty:
        if session.as_json:
            session.say_error(empty_image(), name)
        else:
            session.complain(f"{name} is empty, and not sent")
    return sorted_out


def empty_image() -> CamserveError:
    """Returns what the service would answer to an empty file."""
    return CamserveError("image.source_required", "The image is empty.", status=400)


def may_be_many(argument: str) -> bool:
    """Returns whether an argument names any number of images: a folder, or a pattern."""
    path = Path(argument)
    return path.is_dir() or (glob.has_magic(argument) and not (path.is_file() or argument.startswith(_URLS)))


def named(argument: str) -> dict[str, ImageSource]:
    """Returns images by name: a file, what is in a folder, what a pattern matches, a URL, an id, or `-`, the input.

    Raises ValueError for an empty input, and where a folder or a pattern has no image; FileNotFoundError for a file
    that is not there.
    """
    if argument == "-":
        if not cast(BufferedReader, sys.stdin.buffer).peek(1):
            raise ValueError("the input is empty")
        return {"-": sys.stdin.buffer}
    if argument.startswith(_URLS):
        return {argument: ImageUrl(argument)}
    if _STORED.fullmatch(argument) and not Path(argument).exists():
        return {argument: StorageId(argument)}
    return {_id(path): path for path in _files(argument)}


def _id(path: Path) -> str:
    """Returns the name of a file, of which the service takes no more than its last characters."""
    # Bytes that are no UTF-8 are in files' names only.
    name = str(path).encode(errors="backslashreplace").decode()
    return name if len(name) <= _LONGEST_ID else f"…{name[1 - _LONGEST_ID :]}"


def _files(argument: str) -> Iterator[Path]:
    path = Path(argument)
    if path.is_file() or not (path.is_dir() or glob.has_magic(argument)):
        # Said before anything is sent: one wrong name must not end a batch half-way.
        path.stat()
        yield path
        return
    places = _within(path) if path.is_dir() else map(Path, glob.iglob(argument, recursive=True))
    images = sorted(one for one in places if one.is_file() and one.suffix.lower() in _SUFFIXES)
    if not images:
        raise ValueError(f"{argument} has no images (JPEG, PNG, TIFF or BMP)")
    yield from images


def _within(folder: Path) -> Iterator[Path]:
    """Yields what is in a folder and those below, as patterns do: what begins with a dot is seldom meant."""
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def _is_empty(path: Path) -> bool:
    about = path.stat()
    return stat.S_ISREG(about.st_mode) and not about.st_size
