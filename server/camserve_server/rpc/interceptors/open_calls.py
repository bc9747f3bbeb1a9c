"""Counts open calls, those of callers without a token by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, ExitStack

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import either, ended
from camserve_server.core.open_calls import OpenCalls
from camserve_server.rpc.call import Call, Interceptor, Proceed

# For the first message of a stranger: it is small, or says by whose link the caller came.
_STRANGER_S = 10.0


def open_calls(counts: OpenCalls) -> Interceptor:
    """Returns the link that lets a tenant have so many calls open; a public one is its tenant's once that is known."""

    async def check(call: Call, proceed: Proceed) -> None:
        if not call.policy.public:
            with counts.of_tenant(call.identity.tenant):
                await proceed()
            return
        with ExitStack() as places:
            call.on_link = lambda tenant: places.enter_context(counts.of_tenant(tenant))
            call.request = _after_first(call.request, counts.of_stranger(call.method.full_name))
            await proceed()

    return check


async def _after_first(
    received: AsyncIterator[bytes], place: AbstractContextManager[asyncio.Future[None]]
) -> AsyncIterator[bytes]:
    messages = aiter(received)
    with place as room:
        waiting = asyncio.ensure_future(anext(messages, None))
        try:
            await either(waiting, room, _STRANGER_S)
            if not waiting.done():
                raise ApiError(Reason.SERVICE_OVERLOADED if room.done() else Reason.TIMEOUT_EXCEEDED)
            first = await waiting
        finally:
            await ended([waiting])
            # A failure keeps this frame, which must not keep the failure.
            del waiting
    if first is None:
        return
    yield first
    async for message in messages:
        yield message
