"""Ends calls whose request stalls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import either, ended
from camserve_server.core.open_calls import OpenCalls
from camserve_server.rpc.call import Call, Interceptor, Proceed

# A single message may be a whole image over a slow line, of which nothing is seen until it is there.
_WHOLE = 10
# Such a one, which is in memory as far as it came, takes a place among few once it took longer.
_SOON_S = 5.0


def patience(idle_s: float, counts: OpenCalls) -> Interceptor:
    """Returns the link that waits so long for each message of a stream, and ten times as long for a single one.

    At the edge Envoy does the same; callers of the gRPC port have no Envoy before them.
    """

    async def wait(call: Call, proceed: Proceed) -> None:
        if call.method.client_streaming:
            call.request = _in_time(call.request, idle_s)
        else:
            tenant = "" if call.policy.public else call.identity.tenant
            call.request = _single(call.request, _WHOLE * idle_s, counts, tenant)
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


async def _single(
    received: AsyncIterator[bytes], idle_s: float, counts: OpenCalls, tenant: str
) -> AsyncIterator[bytes]:
    messages = _in_time(received, idle_s)
    # Strangers have places of their own, for every method.
    async with counts.of_arriving(tenant) if tenant else nullcontext():
        first = asyncio.ensure_future(anext(messages, None))
        try:
            await asyncio.wait([first], timeout=_SOON_S)
            if not first.done():
                with counts.of_late(tenant) as room:
                    await either(first, room)
                if not first.done():
                    raise ApiError(Reason.SERVICE_OVERLOADED)
            data = await first
        finally:
            await ended([first])
            # A failure keeps this frame, which must not keep the failure.
            del first
    if data is None:
        return
    yield data
    async for more in messages:
        yield more
