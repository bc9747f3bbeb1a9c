"""Memory that the images of one batch leave to each other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_options import ImageSource
from camserve_server.engine.buffers import SharedBuffer


class BatchMemory:
    """Opens the images of a batch; one for which there is no memory waits while others of the batch have some."""

    def __init__(self) -> None:
        self._others = 0
        self._ended = asyncio.Event()
        self._next = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def opened(self, source: ImageSource) -> AsyncIterator[SharedBuffer]:
        """Opens an image for as long as the context lasts.

        Raises ApiError: what opening it raises, SERVICE_OVERLOADED when it is not this batch that has the memory.
        """
        image = await self._open(source)
        try:
            with image:
                yield image
        finally:
            self._end()

    async def _open(self, source: ImageSource) -> SharedBuffer:
        self._others += 1
        try:
            return await source.open()
        except ApiError as error:
            self._end()
            if error.reason is not Reason.SERVICE_OVERLOADED:
                raise
        except BaseException:
            self._end()
            raise
        # One after the other, so that those that wait do not take from each other what they need.
        async with self._next:
            return await self._open_later(source)

    async def _open_later(self, source: ImageSource) -> SharedBuffer:
        while True:
            self._ended.clear()
            others = self._others
            try:
                image = await source.open()
            except ApiError as error:
                if error.reason is not Reason.SERVICE_OVERLOADED or not others:
                    raise
            else:
                self._others += 1
                return image
            await self._ended.wait()

    def _end(self) -> None:
        self._others -= 1
        self._ended.set()
