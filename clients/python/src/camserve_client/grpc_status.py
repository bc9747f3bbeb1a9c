"""The status with which a streaming call really ended.

When the service ends a call that is still being written to, grpc.aio may put INTERNAL in the place of the status that
came (issue 36066 of grpc/grpc): a refusal of an upload would lose its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from camserve_client.errors import CONNECTION_FAILED, CamserveError
from camserve_client.refusals import of_grpc

T = TypeVar("T")
_WRITE_FAILED = "Internal error from Core"
# It is on its way when the write fails; where it never was, the connection broke.
_COMES_WITHIN_S = 1.0


class Status:
    """Listens to a call from its beginning."""

    def __init__(self, call: Any) -> None:
        self._came = asyncio.Event()
        self._error: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._ended)

    async def of(self, error: grpc.aio.AioRpcError) -> CamserveError:
        """Returns why the call failed, which ended with `error` for whoever awaited it."""
        if error.details() != _WRITE_FAILED:
            return of_grpc(error)
        with suppress(TimeoutError):
            async with asyncio.timeout(_COMES_WITHIN_S):
                await self._came.wait()
        if self._error is None:
            return CamserveError(CONNECTION_FAILED, "The connection broke while it was written to.")
        return of_grpc(self._error)

    def _ended(self, call: Any) -> None:
        """Is called for every status, the one that came and the one put in its place, in either order."""
        details = _at_once(call.details())
        if details != _WRITE_FAILED:
            trailers = _at_once(call.trailing_metadata())
            self._error = grpc.aio.AioRpcError(
                _at_once(call.code()), _at_once(call.initial_metadata()), trailers, details, None
            )
            self._came.set()


def _at_once(known: Coroutine[Any, Any, T]) -> T:
    """Returns what a coroutine returns that has nothing to wait for: a task would come too late."""
    try:
        known.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise RuntimeError("a call that has ended knows its status")
