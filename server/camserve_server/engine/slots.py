"""Waiting in rotation: one tenant's thousand delay another tenant's first by one place, not by a thousand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Rotation(Generic[T]):
    """What waits, taken from the tenants in turn, from each in its order."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, tenant: str, waiter: T) -> None:
        """Puts the waiter behind its tenant's others."""
        self._waiting.setdefault(tenant, deque()).append(waiter)

    def pop(self) -> T:
        """Takes the next one; KeyError when there is none."""
        tenant, waiters = self._waiting.popitem(last=False)
        waiter = waiters.popleft()
        if waiters:
            self._waiting[tenant] = waiters
        return waiter

    def discard(self, tenant: str, waiter: T) -> None:
        """Takes the waiter out if it is here."""
        waiters = self._waiting.get(tenant, deque())
        with suppress(ValueError):
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[tenant]

    def drain(self) -> list[T]:
        """Takes all out."""
        return [self.pop() for _ in range(len(self))]


class FairSlots:
    """`count` slots for the event loop's callers; when all are taken, tenants wait in rotation."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: Rotation[asyncio.Future[None]] = Rotation()

    async def acquire(self, tenant: str) -> None:
        """Waits for a slot; whoever gets one gives it back with `release`."""
        if self._free and not len(self._waiting):
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.push(tenant, turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Gives a slot back, to the next tenant in turn if one waits."""
        while len(self._waiting):
            turn = self._waiting.pop()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
