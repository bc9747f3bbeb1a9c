"""Calls that cost: how many of a tenant's may run at once, and the images that it has for a day."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.core.limits import StoreWatch, TenantLimits
from camserve_server.stores.usage import Usage

# How soon the store is told again of calls that ended while it did not answer, and of how many at most.
_AGAIN_S = 0.5
_MOST_LATE = 10_000
# At the end of the process the rest is left to the leases.
_LAST_S = 1.0
# For so long who was refused is likely refused again; an operator may raise a quota before the day is over.
_LIKELY_S = 1.0
_QUOTA_LIKELY_S = 60.0
_REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class Stay:
    """A call that runs; `here` once the store may know of it."""

    tenant: str
    limits: TenantLimits
    call: str = field(default_factory=partial(secrets.token_hex, 8))
    here: bool = False


class Admission:
    """Admits calls. Those of a process that dies are let go after `lease_s`; while the store is away all may run."""

    def __init__(self, usage: Usage, watch: StoreWatch, clock: Clock, *, lease_s: float = 30.0) -> None:
        self._usage = usage
        self._watch = watch
        self._clock = clock
        self._lease_s = lease_s
        self._running: set[Stay] = set()
        self._refused: dict[str, float] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._late: dict[Stay, bool] = {}
        self._telling: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def staying(self, tenant: str, limits: TenantLimits) -> AsyncIterator[Stay]:
        """Runs a call that is to be charged what it costs, which is nothing where it ends with an ApiError."""
        stay = Stay(tenant, limits)
        refund = False
        self._running.add(stay)
        self._renewing = self._renewing or asyncio.create_task(self._renew())
        try:
            yield stay
        except ApiError:
            refund = True
            raise
        finally:
            self._running.discard(stay)
            if stay.here:
                self._let_go(stay, refund)

    async def charge(self, stay: Stay, images: int) -> None:
        """Admits a call and charges it the images that it costs, once; one that is admitted may be charged later.

        Raises ApiError: QUOTA_EXCEEDED, CONCURRENCY_EXCEEDED.
        """
        limits, was_here = stay.limits, stay.here
        # Whoever leaves while the store is asked may be there.
        stay.here = True
        refusal = await self._watch.ask(
            lambda: self._usage.admit(
                stay.tenant,
                stay.call,
                images=images,
                images_per_day=limits.images_per_day,
                concurrency=limits.concurrency,
                lease_ms=self._lease_ms,
            )
        )
        if refusal is None:
            return
        stay.here = was_here
        lasts_s = _LIKELY_S if refusal.limit == "concurrency" else min(_QUOTA_LIKELY_S, refusal.retry_in_ms / 1000)
        if len(self._refused) >= _REMEMBERED:
            self._refused.clear()
        self._refused[stay.tenant] = self._clock.monotonic() + lasts_s
        if refusal.limit == "concurrency":
            raise ApiError(Reason.CONCURRENCY_EXCEEDED, limit=limits.concurrency)
        retry_after_s = max(1, math.ceil(refusal.retry_in_ms / 1000))
        raise ApiError(Reason.QUOTA_EXCEEDED, retry_after_s=retry_after_s, limit=limits.images_per_day)

    def likely(self, tenant: str) -> bool:
        """Returns whether a call of the tenant is likely admitted: none was refused lately."""
        return self._refused.get(tenant, -math.inf) <= self._clock.monotonic()

    async def close(self) -> None:
        """Ends the renewal of leases, once those of calls that have ended are let go."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=_LAST_S)
        await ended([*self._leaving, *filter(None, (self._telling, self._renewing))])

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    def _let_go(self, stay: Stay, refund: bool) -> None:
        # The answer need not wait for it: what its caller asks next comes to the store behind it.
        task = asyncio.create_task(self._leave(stay, refund))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, stay: Stay, refund: bool) -> None:
        if not await self._left(stay, refund) and len(self._late) < _MOST_LATE:
            self._late[stay] = refund
            self._telling = self._telling or asyncio.create_task(self._tell())

    async def _left(self, stay: Stay, refund: bool) -> bool:
        """Returns whether the store knows that the call has ended; it may be told twice."""

        async def leave() -> bool:
            await self._usage.leave(stay.tenant, stay.call, refund=refund)
            return True

        return await self._watch.ask(leave) or False

    async def _tell(self) -> None:
        """Tells the store of calls that ended while it did not answer: their leases would hold places meanwhile."""
        while self._late:
            await asyncio.sleep(_AGAIN_S)
            for stay, refund in list(self._late.items()):
                if not await self._left(stay, refund):
                    break
                del self._late[stay]
        self._telling = None

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            held: dict[str, list[str]] = defaultdict(list)
            for stay in self._running:
                held[stay.tenant].append(stay.call)
            for tenant, calls in held.items():
                await self._watch.ask(partial(self._usage.renew, tenant, calls, lease_ms=self._lease_ms))
