"""Log files of child processes."""

from __future__ import annotations

import os
from pathlib import Path

_TAIL_BYTES = 8192


def open_log(path: Path) -> tuple[int, int]:
    """Returns a descriptor that appends to a log of this user's, and how many bytes the log has already."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return descriptor, os.fstat(descriptor).st_size


def lines_since(path: Path, seen_bytes: int) -> list[str]:
    """Returns the last lines that were written after the first `seen_bytes` of a log, the newest last."""
    with open(path, "rb") as log:
        log.seek(seen_bytes)
        return log.read()[-_TAIL_BYTES:].decode(errors="replace").strip().splitlines()
