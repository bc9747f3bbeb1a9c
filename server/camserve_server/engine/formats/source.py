"""The uploaded file as the readers see it."""

from __future__ import annotations

import io
import os
from typing import Any

from camserve_server.base.errors import ApiError, Reason


class PictureFile(io.RawIOBase):
    """A read-only file over a descriptor, with a position of its own.

    Reads are positional because a descriptor received from the parent shares its offset with every other
    copy, and they are reads rather than a mapping so that a 100 MB upload adds nothing to the resident size.
    Of its `size` bytes the first `held` are there; what else there is of them, others read as zeros.
    """

    def __init__(self, fd: int, size: int, held: int | None = None) -> None:
        self.fd = fd
        self.size = size
        self.held = size if held is None else held
        self._position = 0

    def at(self, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset`, fewer at the end of the file."""
        # An offset that a file names may be too large for the system.
        return os.pread(self.fd, n_bytes, offset) if offset < self.size else b""

    def exactly(self, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset`; raises IMAGE_DECODING_FAILED when the file ends before."""
        data = self.at(offset, n_bytes)
        if len(data) != n_bytes:
            raise ApiError(Reason.IMAGE_DECODING_FAILED)
        return data

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position."""
        count = os.preadv(self.fd, [buffer], self._position)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the position; it may lie past the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("seek before the start")
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position


class ExtendedFile(PictureFile):
    """A file with another beginning of the same length and something appended, without a copy of what lies between."""

    def __init__(self, file: PictureFile, head: bytes, tail: bytes) -> None:
        super().__init__(file.fd, file.size + len(tail))
        self._head = head
        self._tail = tail

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the position."""
        data = self.at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def at(self, offset: int, n_bytes: int) -> bytes:
        """Return `n_bytes` from `offset`, fewer at the end of the file."""
        end = self.size - len(self._tail)
        parts = [self._head[offset : offset + n_bytes]]
        begin = max(offset, len(self._head))
        if begin < min(offset + n_bytes, end):
            parts.append(os.pread(self.fd, min(offset + n_bytes, end) - begin, begin))
        if offset + n_bytes > end:
            parts.append(self._tail[max(0, offset - end) : offset + n_bytes - end])
        return b"".join(parts)
