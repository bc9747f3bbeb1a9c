"""Starts again what falls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

_log = structlog.get_logger("stack")
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# What ran this long did not fall because of how it was started.
_STEADY_S = 10.0


async def keep_running(
    name: str, exited: Callable[[], Awaitable[int]], restart: Callable[[], Awaitable[object]]
) -> NoReturn:
    """Waits for the end of a process that runs, again and again, and starts it each time."""
    pause_s = _FIRST_PAUSE_S
    while True:
        started = time.monotonic()
        status = await exited()
        if time.monotonic() - started > _STEADY_S:
            pause_s = _FIRST_PAUSE_S
        _log.error("a process ended and is started again", process=name, status=status)
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            try:
                await restart()
                break
            except Exception as error:
                _log.error("a process could not be started again", process=name, error=str(error))
