"""Memory that a replica holds and does not need: what loading read once of libraries, and what it freed."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from pathlib import Path

# From malloc.h of glibc.
_M_ARENA_MAX = -8
_MOST_ARENAS = 8
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) .*?(/.*)?$")


def release_library_pages() -> None:
    """Hands the clean pages of shared libraries back to the kernel's page cache.

    Importing torch touches about 240 MB of its libraries, most of it GPU code that a CPU replica
    never runs. The mappings stay: a page that is needed again is mapped again from the cache.
    Does nothing where there is no /proc.
    """
    if not sys.platform.startswith("linux"):
        return
    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for first, last in clean_mappings(Path("/proc/self/smaps").read_text()):
        madvise(first, last - first, mmap.MADV_DONTNEED)


def release_heap() -> None:
    """Hands what was freed back to the kernel, which glibc would keep for later; a model's load frees hundreds of MB.

    Does nothing where the C library has no malloc_trim.
    """
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


def limit_arenas() -> None:
    """Keeps glibc from giving every thread an arena of its own, each of which holds on to what was freed in it.

    For the start of a process, before there are threads. Does nothing where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, min(_MOST_ARENAS, os.cpu_count() or 1))


def clean_mappings(smaps: str) -> list[tuple[int, int]]:
    """Returns the address ranges of libraries that are read-only and were never written to.

    The linker writes its relocations before it makes a segment read-only; those pages count as
    anonymous, and dropping one would undo them.
    """
    found: list[tuple[int, int]] = []
    candidate: tuple[int, int] | None = None
    for line in smaps.splitlines():
        if mapping := _MAPPING.match(line):
            first, last, permissions, path = mapping.groups()
            is_library = "w" not in permissions and ".so" in Path(path or "").name
            candidate = (int(first, 16), int(last, 16)) if is_library else None
        elif candidate and line.startswith("Anonymous:") and line.split()[1] == "0":
            found.append(candidate)
    return found
