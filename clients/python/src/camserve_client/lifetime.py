"""The time in which a client is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from camserve_client.errors import closed

T = TypeVar("T")


class Lifetime:
    """Lets go of whoever waits for something else than an answer once the client is closed."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self.over = False
        """Is true once the client was closed."""

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Ends what is awaited within at the client's closing; raises CamserveError(client.closed) then."""
        if self.over:
            raise closed()
        wait = asyncio.timeout(None)
        try:
            async with wait:
                self._waits.add(wait)
                try:
                    yield
                finally:
                    self._waits.discard(wait)
        except TimeoutError:
            if wait.expired():
                raise closed() from None
            raise

    async def each(self, source: AsyncGenerator[T]) -> AsyncGenerator[T]:
        """Yields what `source` does, for as long as the client is open, and closes it."""
        async with aclosing(source):
            while True:
                async with self.waiting():
                    try:
                        one = await anext(source)
                    except StopAsyncIteration:
                        return
                yield one

    def end(self) -> None:
        """Closes; to be called in the event loop of those that wait."""
        if self.over:
            return
        self.over = True
        for wait in self._waits:
            wait.reschedule(0.0)
