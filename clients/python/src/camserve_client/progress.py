"""A bar that shows how far an upload has come, for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from camserve_client.uploads import OnProgress, Progress

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(name: str, console: Console | None = None) -> Iterator[OnProgress]:
    """Gives an `on_progress` that draws a bar with bytes, rate and time left, which goes when the block ends.

    Needs rich (`camserve-client[cli]`).
    """
    from rich import progress

    columns = (
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def on_progress(made: Progress) -> None:
            bar.update(task, completed=made.sent_bytes, total=made.total_bytes)

        yield on_progress
