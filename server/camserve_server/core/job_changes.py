"""Who watches a job hears at once of what its replica did to it; of what others did it is for the watcher to look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class JobChanges:
    """The watchers of one replica."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self.on_cancel: Callable[[str], None] = lambda job_id: None
        """Is called with the id of each job that was canceled here, whose items need not be worked on any longer."""
        self.closed = False
        """Says that nobody shall go on watching here."""

    @contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """Gives an event that is set when the job changes; it is for the watcher to clear it before it looks."""
        changed = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(changed)
        try:
            yield changed
        finally:
            watchers = self._watchers[job_id]
            watchers.discard(changed)
            if not watchers:
                del self._watchers[job_id]

    def canceled(self, job_id: str) -> None:
        """Says that the job was canceled."""
        self.on_cancel(job_id)
        self.tell(job_id)

    def close(self) -> None:
        """Has every watcher look once more, and leave."""
        self.closed = True
        for job_id in self._watchers:
            self.tell(job_id)

    def tell(self, job_id: str) -> None:
        """Says that the job changed."""
        for changed in self._watchers.get(job_id, ()):
            changed.set()
