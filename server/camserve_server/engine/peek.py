"""What is kept of a file whose bytes stream by: enough to read its header, however long the file is."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, open_anonymous

# Past this the header of a picture is not looked for; metadata before it is seldom larger.
BEGINNING_BYTES = 8 << 20
# A TIFF's directory may lie anywhere; one of a few hundred entries is this long.
_DIRECTORY_BYTES = 64 << 10
_HEAD_BYTES = 16


class Peek:
    """A sparse file in memory that holds the beginning of a stream, and of a TIFF its first directory.

    What was not kept reads as zeros. Not safe for use from two threads at once; whoever makes it closes it.
    """

    def __init__(self, budget: ByteBudget | None = None, tenant: str = "") -> None:
        """Take no more than 8.1 MiB of the budget, for the tenant."""
        self.fd = open_anonymous("peek")
        self.size = 0
        self._budget = budget
        self._tenant = tenant
        self._taken_bytes = 0
        self._head = b""
        self._windows = [(0, BEGINNING_BYTES)]

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return self.size <= BEGINNING_BYTES

    @property
    def held(self) -> int:
        """The bytes of the beginning that are kept."""
        return min(self.size, BEGINNING_BYTES)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take the next bytes of the stream; raises SERVICE_OVERLOADED when the budget has no room for them."""
        view = memoryview(data).cast("B")
        if len(self._head) < _HEAD_BYTES:
            self._head += bytes(view[: _HEAD_BYTES - len(self._head)])
            if len(self._head) == _HEAD_BYTES and (offset := _directory(self._head)):
                self._windows.append((offset, offset + _DIRECTORY_BYTES))
        for start, end in self._windows:
            first, last = max(start, self.size), min(end, self.size + len(view))
            if first < last:
                self._keep(view[first - self.size : last - self.size], first)
        self.size += len(view)

    def finish(self) -> None:
        """Give the file its length."""
        os.ftruncate(self.fd, self.size)

    def close(self) -> None:
        """Release the memory."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)
        taken, self._taken_bytes = self._taken_bytes, 0
        if self._budget and taken:
            self._budget.give(taken, self._tenant)

    def _keep(self, part: memoryview, offset: int) -> None:
        if self._budget:
            if not self._budget.try_take(len(part), self._tenant):
                raise ApiError(Reason.SERVICE_OVERLOADED)
            self._taken_bytes += len(part)
        while part:
            written = os.pwrite(self.fd, part, offset)
            part, offset = part[written:], offset + written


def _directory(head: bytes) -> int:
    """Return where the first directory of a TIFF or BigTIFF lies, 0 for anything else."""
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return 0
    version, classic, big = struct.unpack(f"{order}2xHIQ", head)
    offsets: dict[int, int] = {42: classic, 43: big}
    return offsets.get(version, 0)
