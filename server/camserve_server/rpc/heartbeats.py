"""Signs of life in streams that have nothing to say for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

HEARTBEAT_S = 15.0

T = TypeVar("T")


async def with_heartbeats(events: AsyncIterator[T]) -> AsyncGenerator[T | None]:
    """Yields the events, and None whenever none came for 15 seconds."""
    upcoming = asyncio.ensure_future(anext(events, None))
    try:
        while True:
            done, _ = await asyncio.wait([upcoming], timeout=HEARTBEAT_S)
            if not done:
                yield None
                continue
            event = upcoming.result()
            if event is None:
                return
            upcoming = asyncio.ensure_future(anext(events, None))
            yield event
    finally:
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
