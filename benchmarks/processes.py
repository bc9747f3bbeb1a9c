"""What Linux tells about processes: their descendants, processor time and memory, read from /proc."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
# In the order in which they are asked: the first word found in the command line names the process.
_ROLES = (
    ("guard.py", "guard"),
    ("imaging_worker", "imaging worker"),
    ("valkey-server", "Valkey"),
    ("envoy", "Envoy"),
    ("camserve_server.cli.app serve", "replica"),
    ("camserve_server.cli.app up", "up"),
)


def descendants(pid: int) -> list[int]:
    """Returns the process and everything it started, directly or not, that still runs."""
    found, waiting = [], deque([pid])
    while waiting:
        parent = waiting.popleft()
        found.append(parent)
        for task in _PROC.glob(f"{parent}/task/*/children"):
            waiting.extend(int(child) for child in _read(task).split())
    return found


def role(pid: int) -> str:
    """Returns what the process is in camserve, from its command line; "other" when it is nothing of that."""
    command = _read(_PROC / str(pid) / "cmdline").replace("\0", " ")
    return next((name for word, name in _ROLES if word in command), "other")


def by_role(pid: int) -> dict[str, list[int]]:
    """Returns the process and its descendants by their roles."""
    roles: dict[str, list[int]] = {}
    for one in descendants(pid):
        roles.setdefault(role(one), []).append(one)
    return roles


def cpu_s(pids: Iterable[int]) -> float:
    """Returns the processor time that the processes have used so far, all threads together."""
    ticks = 0
    for pid in pids:
        # The name in parentheses may hold spaces; what follows it does not.
        fields = _read(_PROC / str(pid) / "stat").rpartition(")")[2].split()
        if fields:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Memory:
    """What processes keep in memory, in MB.

    `rss_mb` counts a page once per process that maps it. `once_mb` counts the pages of a file once for all these
    processes, and `pss_mb` shares them out among all processes of the machine.
    """

    rss_mb: float
    once_mb: float
    pss_mb: float


def memory(pids: Iterable[int]) -> Memory:
    """Returns the memory of the processes together.

    Which pages of a file two processes share is not readable without privileges: the process that has most of
    them in memory stands for all.
    """
    rss_kb = pss_kb = private_kb = 0
    shared_kb: dict[str, int] = {}
    for pid in pids:
        mapped_kb: Counter[str] = Counter()
        name = ""
        for words in map(str.split, _read(_PROC / str(pid) / "smaps").splitlines()):
            if not words[0].endswith(":"):
                name = words[5] if len(words) > 5 else ""
            elif words[0] == "Rss:":
                rss_kb += int(words[1])
                mapped_kb[name] += int(words[1])
            elif words[0] == "Anonymous:":
                private_kb += int(words[1])
                mapped_kb[name] -= int(words[1])
            elif words[0] == "Pss:":
                pss_kb += int(words[1])
        for name, kb in mapped_kb.items():
            shared_kb[name] = max(kb, shared_kb.get(name, 0))
    return Memory(rss_kb / 1000, (private_kb + sum(shared_kb.values())) / 1000, pss_kb / 1000)


class PeakWatch:
    """Follows, while entered, how far the resident memory of processes rises above where it was.

    The kernel keeps the peak; it is reset at the beginning and read every 20 ms, because a process may end
    before anybody asks for it.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self.start_mb: dict[int, float] = {}
        self.growth_mb: dict[int, float] = {}
        for pid in pids:
            (_PROC / str(pid) / "clear_refs").write_text("5")
            self.start_mb[pid] = _fields(_PROC / str(pid) / "status").get("VmRSS", 0) / 1000
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends, with a last look."""
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        last = False
        while not last:
            last = self._ended.wait(0.02)
            for pid, start_mb in self.start_mb.items():
                peak_mb = _fields(_PROC / str(pid) / "status").get("VmHWM", 0) / 1000
                self.growth_mb[pid] = max(self.growth_mb.get(pid, 0.0), peak_mb - start_mb)


def _read(path: Path) -> str:
    # A process may end between being found and being read.
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _fields(path: Path) -> dict[str, int]:
    """Returns the numbers of lines such as `VmRSS:  1024 kB`."""
    words = [line.split() for line in _read(path).splitlines()]
    return {line[0].rstrip(":"): int(line[1]) for line in words if len(line) > 2 and line[2] == "kB"}
