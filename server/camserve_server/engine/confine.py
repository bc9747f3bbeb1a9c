"""What an imaging worker takes from itself before it sees a caller's byte."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_OPEN_FILES: Final = 64


def confine(parent_pid: int, memory_bytes: int) -> None:
    """Die with the parent, gain no privileges, leave no core, and stay within `memory_bytes` beyond now.

    Linux holds all of it; elsewhere the limits that exist.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # The parent may have died before the first line took effect.
        if os.getppid() != parent_pid:
            sys.exit(1)
    # Signals may reach the whole process group; the parent alone decides when workers end.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, _MAX_OPEN_FILES)
    # Shared memory is no part of the address space while it is only written to.
    _lower(resource.RLIMIT_FSIZE, memory_bytes)
    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, _pages(0) + memory_bytes)


def limit_cpu(seconds: float) -> None:
    """Let this process use `seconds` of processor time from now, then be killed.

    The parent's deadline comes first; this one holds when the parent is stopped or starved.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(usage.ru_utime + usage.ru_stime + seconds) + 1, hard))


def resident_bytes() -> int:
    """Return the resident size of this process; 0 where the system does not tell."""
    return _pages(1) if sys.platform == "linux" else 0


def _pages(column: int) -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[column]) * resource.getpagesize()


def _lower(kind: int, value: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (min(value, hard) if hard != resource.RLIM_INFINITY else value,) * 2)
