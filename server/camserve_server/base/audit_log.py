"""The audit log: one line per call, appended, each with the digest of the line before it.

What was altered, left out or put in between breaks the chain, which `verify` finds. Lines that are cut off at the end
do not: ship them elsewhere, or keep the last digest elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import orjson

from camserve_server.base.telemetry import AUDIT_FAILURES

# Of a chain that begins.
NOTHING_BEFORE: Final = ""
_LAST_BYTES: Final = 1 << 20


class BrokenChainError(Exception):
    """A line does not follow the one before it; the message says which."""


class AuditLog:
    """Appends to a file of this process. One that is renamed is followed by a new one, with the chain going on."""

    def __init__(self, path: Path) -> None:
        """Goes on where the file ends; raises OSError where it cannot be read or made."""
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._append(b"")
        self._previous = _last_digest(path)

    def write(self, about: Mapping[str, object]) -> None:
        """Appends a line; one that cannot be written is lost and counted, and breaks the chain to see."""
        line = orjson.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), **about, "previous": self._previous}
        )
        self._previous = _digest(line)
        try:
            self._append(line + b"\n")
        except OSError:
            AUDIT_FAILURES.inc()

    def _append(self, data: bytes) -> None:
        # Opened anew each time: whoever rotates the file needs to tell nobody.
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(fd, data)
            if written < len(data):
                # As on a disk that is full: what comes next must not be taken for the rest of this line.
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OSError("the line was cut off")
        finally:
            os.close(fd)


def verify(lines: Iterable[bytes], previous: str | None = None) -> tuple[int, str]:
    """Returns how many lines there are, and the digest of the last one.

    `previous` is the digest of the line before the first one; None takes the first line's word for it, as of a file
    whose predecessors are gone. Raises BrokenChainError.
    """
    number = 0
    for number, text in enumerate(lines, 1):
        line = text.removesuffix(b"\n")
        try:
            said = orjson.loads(line)["previous"]
        except (ValueError, KeyError, TypeError):
            raise BrokenChainError(f"line {number} is no line of an audit log") from None
        if previous is not None and said != previous:
            raise BrokenChainError(f"line {number} does not follow the line before it")
        previous = _digest(line)
    return number, previous or NOTHING_BEFORE


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _last_digest(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES))
        lines = file.read().splitlines()
    return _digest(lines[-1]) if lines else NOTHING_BEFORE
