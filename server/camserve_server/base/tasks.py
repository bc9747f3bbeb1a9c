"""Ends of tasks, and work that must come to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
_CANCEL_AGAIN_S = 0.5
# The event loop itself holds tasks only weakly.
_to_complete: set[asyncio.Task[Any]] = set()


async def ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels the tasks until they have ended: a library on their way may swallow one cancellation."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)


async def either(first: asyncio.Future[Any], second: asyncio.Future[Any], within_s: float | None = None) -> None:
    """Waits until one of the two is done, or the time is over."""
    await asyncio.wait([first, second], timeout=within_s, return_when=asyncio.FIRST_COMPLETED)


async def wound_up(task: asyncio.Task[Any], within_s: float) -> None:
    """Waits for a task that has been asked to come to its end, and cancels it where that takes too long."""
    await asyncio.wait([task], timeout=within_s)
    await ended([task])


async def completed(work: Coroutine[Any, Any, T]) -> T:
    """Runs work to its end, even where the caller is canceled meanwhile, and returns what it returns."""
    task = asyncio.create_task(work)
    _to_complete.add(task)
    task.add_done_callback(_done)
    try:
        return await asyncio.shield(task)
    finally:
        # A failure keeps this frame, which must not keep the failure.
        del task


async def all_completed(within_s: float) -> None:
    """Waits for what `completed` runs on for callers that have left."""
    if _to_complete:
        await asyncio.wait(_to_complete, timeout=within_s)


def _done(task: asyncio.Task[Any]) -> None:
    _to_complete.discard(task)
    if not task.cancelled():
        task.exception()  # it is the caller who raises it, and the caller may have left
