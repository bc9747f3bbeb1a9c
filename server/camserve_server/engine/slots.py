"""A bound on stream callers that hands out its slots to tenants in turn."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class FairSlots:
    """`count` slots for the event loop's callers; when all are taken, tenants wait in rotation.

    One tenant's thousand waiting callers delay another tenant's first by one slot, not by a
    thousand.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def acquire(self, tenant: str) -> None:
        """Waits for a slot; whoever gets one gives it back with `release`."""
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Gives a slot back, to the next tenant in turn if one waits."""
        while self._waiting:
            tenant, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[tenant] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
