"""Files and folders by descriptor: below an open folder no symbolic link is followed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class File:
    """An open file that closes with the last reference to it.

    A cancelled caller cannot know when the thread that works for it is done. The thread holds a reference,
    so the number is never closed, and given to another file, under its hands.
    """

    def __init__(self, number: int) -> None:
        """Own an open descriptor."""
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)

    def write(self, data: bytes) -> None:
        """Writes all of it."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.number, rest) :]

    def write_at(self, offset: int, data: bytes) -> None:
        """Writes all of it at a place."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self.number, rest, offset)
            offset, rest = offset + written, rest[written:]

    def read_at(self, offset: int, length: int) -> bytes:
        """Returns up to `length` bytes, fewer only at the end of the file."""
        data = os.pread(self.number, length, offset)
        while len(data) < length and (more := os.pread(self.number, length - len(data), offset + len(data))):
            data += more
        return data


def make_folder(parent: int, name: str) -> None:
    """Makes a folder unless it is there."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)


@contextlib.contextmanager
def opened_folder(parent: int, name: str) -> Iterator[int]:
    """Opens a folder and gives its descriptor."""
    number = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    try:
        yield number
    finally:
        os.close(number)
