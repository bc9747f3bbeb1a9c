"""Waiting in rotation: one tenant's thousand delay another tenant's first by one place, not by a thousand."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


# How far back counts what a tenant had: about twice as many turns.
_MEMORY_TURNS = 64


class Rotation(Generic[T]):
    """What waits, from each tenant in its order; next is the tenant that had least lately, each turn at its cost.

    So who asks for little does not wait behind who asks for much, and those who ask for as much take turns (least
    attained service, with a memory that fades).
    """

    def __init__(self, cost: Callable[[T], float] = lambda _: 1.0) -> None:
        self._cost = cost
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._had: dict[str, float] = {}
        self._turns = 0

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def push(self, tenant: str, waiter: T) -> None:
        """Puts the waiter behind its tenant's others."""
        self._waiting.setdefault(tenant, deque()).append(waiter)

    def pop(self, may: Callable[[str], bool] = lambda _: True) -> T:
        """Takes the next one of the tenants that `may`; KeyError when there is none."""
        # Among equals the one whose last turn is longest ago stands first.
        tenant = min(filter(may, self._waiting), key=lambda name: self._had.get(name, 0.0), default=None)
        if tenant is None:
            raise KeyError("nobody waits")
        waiters = self._waiting.pop(tenant)
        waiter = waiters.popleft()
        if waiters:
            self._waiting[tenant] = waiters
        self._count(tenant, self._cost(waiter))
        return waiter

    def had(self) -> float:
        """Returns what the tenant that is next had lately; infinity when nobody waits."""
        return min((self._had.get(name, 0.0) for name in self._waiting), default=float("inf"))

    def heads(self) -> list[T]:
        """Returns the first one of every tenant."""
        return [waiters[0] for waiters in self._waiting.values()]

    def _count(self, tenant: str, cost: float) -> None:
        self._had[tenant] = self._had.get(tenant, 0.0) + cost
        self._turns += 1
        if self._turns == _MEMORY_TURNS:
            self._turns = 0
            self._had = {name: had / 2 for name, had in self._had.items() if had > 1}

    def discard(self, tenant: str, waiter: T) -> None:
        """Takes the waiter out if it is here."""
        waiters = self._waiting.get(tenant, deque())
        with suppress(ValueError):
            waiters.remove(waiter)
            if not waiters:
                del self._waiting[tenant]

    def count(self, tenant: str) -> int:
        """Returns how many of a tenant wait."""
        return len(self._waiting.get(tenant, ()))

    def ahead(self, tenant: str) -> int:
        """Returns about how many go before one that this tenant would put now."""
        own = self.count(tenant)
        return own + sum(min(len(waiters), own + 1) for name, waiters in self._waiting.items() if name != tenant)

    def longest(self) -> str:
        """Returns the tenant of which most wait; ValueError when nobody waits."""
        return max(self._waiting, key=self.count)

    def drop_last(self, tenant: str) -> T:
        """Takes out the one of a tenant that came last; KeyError when none of it waits."""
        waiters = self._waiting[tenant]
        waiter = waiters.pop()
        if not waiters:
            del self._waiting[tenant]
        return waiter

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
