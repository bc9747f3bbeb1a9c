"""Connections that a hostile server cannot keep busy."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

# Status lines and headers, those of interim answers (1xx) included, which a server may send without end.
MOST_HEAD_BYTES = 64 * 1024


class CappedConnector(aiohttp.TCPConnector):
    """Ends a connection on which that much came before the final answer began."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        handler: type[ResponseHandler] = _CappedHandler
        self._factory = partial(handler, loop=asyncio.get_running_loop())


class _CappedHandler(ResponseHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head_bytes = 0
        self._begun = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._begun:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self.abort()
                self.set_exception(aiohttp.ClientPayloadError("no answer within the bytes that one may take"))

    def feed_data(self, data: Any, size: int = 0) -> None:
        self._begun = self._begun or data[0].code >= 200
        super().feed_data(data, size)
