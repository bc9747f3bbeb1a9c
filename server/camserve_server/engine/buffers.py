"""Anonymous shared memory that can be handed to another process, and the account that bounds it."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
import tempfile
import threading
import weakref
from collections import Counter
from types import TracebackType
from typing import Final, Self

from camserve_server.base.errors import ApiError, Reason

# Linux values; the names are missing from `fcntl` on other systems.
_F_ADD_SEALS: Final = 1033
_SEAL_SHRINK_GROW_WRITE: Final = 0x2 | 0x4 | 0x8
_MOST_OF_FREE: Final = 2


class ByteBudget:
    """Counts bytes that are held in shared memory, up to a limit for the whole process.

    Of that limit a tenant holds at most twice what it leaves free, or `least_bytes`: alone two thirds, two of them two
    fifths each. So one that lets its uploads stand still leaves room to the others. What is nobody's is taken for the
    tenant "". (The dynamic thresholds of A. K. Choudhury and E. L. Hahne, "Dynamic queue length thresholds for
    shared-memory packet switches", IEEE/ACM Transactions on Networking 6(2), 1998.)
    """

    def __init__(self, limit_bytes: int, *, least_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self._least_bytes = least_bytes
        self._taken_bytes = 0
        self._by_tenant: Counter[str] = Counter()
        # Finalizers give bytes back from whatever thread collects garbage, even one inside try_take.
        self._lock = threading.RLock()

    @property
    def most_bytes(self) -> int:
        """What a tenant can hold where nobody else holds anything."""
        alone_bytes = self.limit_bytes * _MOST_OF_FREE // (1 + _MOST_OF_FREE)
        return min(self.limit_bytes, max(self._least_bytes, alone_bytes))

    @property
    def taken_bytes(self) -> int:
        """Bytes taken and not yet given back."""
        return self._taken_bytes

    def try_take(self, n_bytes: int, tenant: str = "") -> bool:
        """Take `n_bytes` for the tenant, or nothing and return False when they would pass the limit or its share."""
        with self._lock:
            free_bytes = self.limit_bytes - self._taken_bytes - n_bytes
            own_bytes = self._by_tenant[tenant] + n_bytes
            if free_bytes < 0 or (tenant and own_bytes > max(self._least_bytes, _MOST_OF_FREE * free_bytes)):
                return False
            self._taken_bytes += n_bytes
            self._by_tenant[tenant] = own_bytes
            return True

    def give(self, n_bytes: int, tenant: str = "") -> None:
        """Give back bytes taken before."""
        with self._lock:
            self._taken_bytes -= n_bytes
            self._by_tenant[tenant] -= n_bytes
            if not self._by_tenant[tenant]:
                del self._by_tenant[tenant]


class _Holding:
    """What a buffer must release exactly once: its descriptor and its share of the budget."""

    def __init__(self, fd: int, budget: ByteBudget | None, tenant: str) -> None:
        self.fd = fd
        self.budget = budget
        self.tenant = tenant
        self.taken_bytes = 0
        # Held for a write too: once closed, the descriptor's number may be another's.
        self.lock = threading.RLock()

    def take(self, n_bytes: int) -> None:
        with self.lock:
            if self.fd < 0:
                # A thread whose caller has left; nobody would give them back.
                raise ValueError("the buffer is closed")
            if self.budget is not None:
                if not self.budget.try_take(n_bytes, self.tenant):
                    raise ApiError(Reason.SERVICE_OVERLOADED)
                self.taken_bytes += n_bytes

    def release(self) -> None:
        with self.lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)
            taken, self.taken_bytes = self.taken_bytes, 0
        if self.budget is not None and taken:
            self.budget.give(taken, self.tenant)


class SharedBuffer:
    """Bytes in anonymous shared memory, appended once and then read by this and other processes.

    Not safe for use from two threads at once, but for `close`, which waits for an `append`. Released by `close`, by
    leaving `with`, or with the last reference.
    """

    def __init__(self, fd: int, size: int, budget: ByteBudget | None = None, tenant: str = "") -> None:
        """Own `fd`, which holds `size` bytes; they are charged to the `budget` of `tenant` by the maker, not here."""
        self._holding = _Holding(fd, budget, tenant)
        self._size = size
        self._map: mmap.mmap | None = None
        self._release = weakref.finalize(self, self._holding.release)

    @classmethod
    def create(cls, name: str = "camserve", budget: ByteBudget | None = None, tenant: str = "") -> SharedBuffer:
        """Make an empty buffer; `name` only shows in `/proc`."""
        return cls(open_anonymous(name), 0, budget, tenant)

    @classmethod
    def adopt(cls, fd: int, size: int, budget: ByteBudget | None = None) -> SharedBuffer:
        """Own a descriptor from another process that must hold exactly `size` bytes.

        It is sealed where the system can, so that the other side cannot shrink it below a mapping of ours.
        Raises ValueError when the size differs and SERVICE_OVERLOADED when the budget is exhausted; `fd` is closed then
        too.
        """
        buffer = cls(fd, size, budget)
        try:
            _seal(fd)
            if os.fstat(fd).st_size != size:
                raise ValueError("the descriptor does not hold the declared number of bytes")
            buffer._holding.take(size)
        except BaseException:
            buffer.close()
            raise
        return buffer

    def share(self) -> SharedBuffer:
        """Return the same bytes as a buffer of its own, charged once more; raises SERVICE_OVERLOADED like `append`."""
        shared = SharedBuffer(os.dup(self.fd), self._size, self._holding.budget, self._holding.tenant)
        try:
            shared._holding.take(self._size)
        except BaseException:
            shared.close()
            raise
        return shared

    @property
    def size(self) -> int:
        """Bytes appended so far."""
        return self._size

    @property
    def fd(self) -> int:
        """The descriptor, owned by this buffer; -1 once closed."""
        return self._holding.fd

    def reserve(self, n_bytes: int) -> None:
        """Take the budget for so many bytes in all before they come; raises SERVICE_OVERLOADED when it has no room."""
        self._holding.take(max(0, n_bytes - self._holding.taken_bytes))

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes at the end; raises SERVICE_OVERLOADED when the budget has no room for them."""
        if self._map is not None:
            raise ValueError("a buffer that was viewed cannot grow")
        rest = memoryview(data).cast("B")
        with self._holding.lock:
            self.reserve(self._size + len(rest))
            while rest:
                written = os.pwrite(self.fd, rest, self._size)
                self._size += written
                rest = rest[written:]

    def view(self) -> memoryview:
        """Return all bytes, mapped read-only; the buffer cannot grow afterwards."""
        if self._size == 0:
            return memoryview(b"")
        if self._map is None:
            self._map = mmap.mmap(self.fd, self._size, prot=mmap.PROT_READ)
        return memoryview(self._map)

    def close(self) -> None:
        """Release descriptor and budget; views that are still held stay readable until they are dropped."""
        mapped, self._map = self._map, None
        if mapped is not None:
            with contextlib.suppress(BufferError):
                mapped.close()
        self._release()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_anonymous(name: str) -> int:
    """Return a new descriptor on empty memory that no path leads to."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    fd, path = tempfile.mkstemp(prefix=name)
    os.unlink(path)
    return fd


def _seal(fd: int) -> None:
    if sys.platform == "linux":
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK_GROW_WRITE)
