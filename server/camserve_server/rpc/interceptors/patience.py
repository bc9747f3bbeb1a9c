"""Ends calls whose request stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.call import Call, Interceptor, Proceed

# A single message may be a whole image over a slow line, of which nothing is seen until it is there.
_WHOLE = 10


def patience(idle_s: float) -> Interceptor:
    """Returns the link that waits so long for each message of a stream, and ten times as long for a single one.

    At the edge Envoy does the same; callers of the gRPC port have no Envoy before them.
    """

    async def wait(call: Call, proceed: Proceed) -> None:
        call.request = _in_time(call.request, idle_s if call.method.client_streaming else _WHOLE * idle_s)
        await proceed()

    return wait


async def _in_time(received: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    messages = aiter(received)
    while True:
        try:
            async with asyncio.timeout(idle_s):
                data = await anext(messages, None)
        except TimeoutError:
            raise ApiError(Reason.TIMEOUT_EXCEEDED) from None
        if data is None:
            return
        yield data
