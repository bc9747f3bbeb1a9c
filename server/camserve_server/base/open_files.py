"""How many files and connections a process may have open."""

from __future__ import annotations

import contextlib
import resource

_MOST = 65_536


def raise_limit() -> None:
    """Lets this process and those it starts open as many files as the system allows, up to 65,536.

    The usual 1024 are less than the connections that are taken, and a replica without a descriptor opens no image.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST if hard == resource.RLIM_INFINITY else min(_MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        # macOS refuses more than a limit of the kernel that it does not tell here.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections(wanted: int) -> int:
    """Returns `wanted`, or what leaves half of the descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if soft == resource.RLIM_INFINITY else min(wanted, soft // 2)
