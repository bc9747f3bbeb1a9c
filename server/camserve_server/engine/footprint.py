"""Memory that a replica holds and does not need: the pages of libraries read once, while loading."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path


def release_library_pages() -> None:
    """Hands the read-only pages of shared libraries back to the kernel's page cache.

    Importing torch touches about 240 MB of its libraries, most of it GPU code that a CPU replica
    never runs. The mappings stay: a page that is needed again is mapped again from the cache.
    Does nothing where /proc or madvise is missing.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions, _, _, _, *path = line.split(maxsplit=5)
        # Only what can never have been written to: dropping a private page that was would undo it.
        if path and ".so" in path[0] and "w" not in permissions:
            first, last = (int(address, 16) for address in span.split("-"))
            madvise(first, last - first, mmap.MADV_DONTNEED)
