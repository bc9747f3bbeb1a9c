"""What a tenant may do: plans, limits of its own, and the rate of its requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import LIMITS_UNCHECKED
from camserve_server.core.local_rate import LocalRate
from camserve_server.stores.limits import LimitRecords, TenantRecord, Values
from camserve_server.stores.usage import Bucket, Usage, Used

# A change is in force everywhere within two seconds; half of that leaves room for a slow store.
_FRESH_S = 1.0
_REMEMBERED = 10_000
# Calls do not wait longer than that for a store that is slow, and do not ask one that failed for a while.
_PATIENCE_S = 0.5
_AWAY_S = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """The limits of one tenant as they are in force, named as in the contract's LimitValues."""

    requests_per_second: int
    burst: int
    images_per_day: int
    concurrency: int
    max_batch_size: int
    max_image_bytes: int


@dataclass(frozen=True, slots=True)
class Standing:
    """How a tenant's rate stands after a request: all in requests and seconds from now.

    `retry_after_s` is None for a request that may pass.
    """

    limit: int
    remaining: int
    reset_s: int
    retry_after_s: int | None


class StoreWatch:
    """Asks the store for limits, and leaves it alone for a while when it fails: limits must not stop the service."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._away_until = -math.inf

    async def ask(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """Returns the answer of `work`, None where the store does not give one in time."""
        now = self._clock.monotonic()
        if now < self._away_until:
            return None
        if self._away_until > -math.inf:
            # This call finds out; those beside it do not wait for that.
            self._away_until = now + _AWAY_S
        try:
            async with asyncio.timeout(_PATIENCE_S):
                answer = await work()
        except (ApiError, TimeoutError):
            self._away_until = self._clock.monotonic() + _AWAY_S
            LIMITS_UNCHECKED.inc()
            return None
        self._away_until = -math.inf
        return answer


class Limits:
    """The limits of all tenants. `defaults` are those of a tenant without any of its own.

    While the store is away the limits last known hold, and each replica counts requests by itself.
    """

    def __init__(
        self, records: LimitRecords, usage: Usage, watch: StoreWatch, clock: Clock, *, defaults: TenantLimits
    ) -> None:
        self._records = records
        self._usage = usage
        self._watch = watch
        self._clock = clock
        self._defaults = defaults
        self._known: dict[str, tuple[float, TenantLimits]] = {}
        self._fetches: dict[str, asyncio.Task[TenantLimits]] = {}
        self._local = LocalRate(clock)
        self._giving_back: set[asyncio.Task[None]] = set()
        self._stood: dict[str, tuple[float, Standing]] = {}

    async def of(self, tenant: str) -> TenantLimits:
        """Returns a tenant's limits as they were at most a second ago."""
        known = self._known.get(tenant)
        if known and self._clock.monotonic() - known[0] < _FRESH_S:
            return known[1]
        if tenant not in self._fetches:
            self._fetches[tenant] = task = asyncio.create_task(self._fetch(tenant))
            task.add_done_callback(lambda _: self._fetches.pop(tenant))
        # Shared with others who ask meanwhile, so that one who leaves does not take it from them.
        return await asyncio.shield(self._fetches[tenant])

    async def take(self, tenant: str, limits: TenantLimits) -> Standing:
        """Counts a request and returns how the tenant stands; one that may not pass is not counted."""
        bucket = await self._watch.ask(
            lambda: self._usage.take(tenant, rate=limits.requests_per_second, burst=limits.burst)
        )
        if bucket is None:
            bucket = self._local.take(tenant, limits.requests_per_second, limits.burst)
        standing = _standing(limits, bucket)
        if len(self._stood) >= _REMEMBERED:
            self._stood.clear()
        self._stood[tenant] = (self._clock.monotonic(), standing)
        return standing

    async def take_for(self, tenant: str, limits: TenantLimits) -> Standing:
        """Takes for somebody who counts the request himself where he does not wait for the answer: as `take`, but then
        it is given back.
        """
        taking = asyncio.create_task(self.take(tenant, limits))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            giving_back = asyncio.create_task(self._give_back(tenant, limits, taking))
            self._giving_back.add(giving_back)
            giving_back.add_done_callback(self._giving_back.discard)
            raise

    def recent(self, tenant: str) -> Standing | None:
        """Returns how a tenant stood within the last second, None unless its latest request might pass."""
        at, standing = self._stood.get(tenant, (-math.inf, None))
        fresh = self._clock.monotonic() - at < _FRESH_S
        return standing if standing and fresh and standing.retry_after_s is None else None

    def plenty(self, tenant: str) -> bool:
        """Returns whether a request likely passes: none of the last second left less than half of the burst."""
        at, standing = self._stood.get(tenant, (-math.inf, None))
        fresh = self._clock.monotonic() - at < _FRESH_S
        return not (standing and fresh) or standing.remaining * 2 >= standing.limit

    async def report(self, tenant: str) -> tuple[TenantLimits, int, Used]:
        """Returns a tenant's limits, how many requests it may send now, and what it uses.

        Raises ApiError(STORE_UNAVAILABLE).
        """
        limits = await self.of(tenant)
        bucket, used = await asyncio.gather(
            self._usage.take(tenant, rate=limits.requests_per_second, burst=limits.burst, look=True),
            self._usage.read(tenant),
        )
        return limits, bucket.remaining, used

    async def _give_back(self, tenant: str, limits: TenantLimits, taking: asyncio.Task[Standing]) -> None:
        if (await taking).retry_after_s is None:
            rate, burst = limits.requests_per_second, limits.burst
            await self._watch.ask(lambda: self._usage.give_back(tenant, rate=rate, burst=burst))

    async def _fetch(self, tenant: str) -> TenantLimits:
        limits = await self._watch.ask(lambda: self._read(tenant))
        if limits is None:
            known = self._known.get(tenant)
            limits = known[1] if known else self._defaults
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        self._known[tenant] = (self._clock.monotonic(), limits)
        return limits

    async def _read(self, tenant: str) -> TenantLimits:
        record = await self._records.tenant(tenant)
        plan = await self._records.plan(record.plan) if record.plan else None
        return self.combined([plan or {}, record.values])

    def combined(self, layers: Iterable[Values]) -> TenantLimits:
        """Returns the limits that follow from layers, of which a later one comes first."""
        merged = asdict(self._defaults)
        for layer in layers:
            if "requests_per_second" in layer and "burst" not in layer:
                # The burst of another rate says nothing: a second's worth is what the rate itself allows.
                merged["burst"] = layer["requests_per_second"]
            merged |= layer
        limits = TenantLimits(**merged)
        # A tenant's limit may be lower than the deployment's, never higher.
        return replace(
            limits,
            max_batch_size=min(limits.max_batch_size, self._defaults.max_batch_size),
            max_image_bytes=min(limits.max_image_bytes, self._defaults.max_image_bytes),
        )


class LimitAdmin:
    """Sets limits. Every method raises ApiError(STORE_UNAVAILABLE)."""

    def __init__(self, records: LimitRecords, limits: Limits) -> None:
        self._records = records
        self._limits = limits

    async def tenants(self) -> list[tuple[str, TenantRecord, TenantLimits]]:
        """Returns every tenant for which something is set, and the limits that follow, by name."""
        return [(tenant, *await self.tenant(tenant)) for tenant in await self._records.tenants()]

    async def tenant(self, tenant: str) -> tuple[TenantRecord, TenantLimits]:
        """Returns what is set for a tenant, and the limits that follow."""
        record = await self._records.tenant(tenant)
        plan = await self._records.plan(record.plan) if record.plan else None
        return record, self._limits.combined([plan or {}, record.values])

    async def set_tenant(self, tenant: str, plan: str | None, values: Values) -> None:
        """Changes what is given; an empty plan takes it away. Raises ApiError(PLAN_NOT_FOUND)."""
        if plan and await self._records.plan(plan) is None:
            raise ApiError(Reason.PLAN_NOT_FOUND)
        await self._records.set_tenant(tenant, plan, values)

    async def reset_tenant(self, tenant: str) -> None:
        """Gives a tenant the limits of everybody."""
        await self._records.reset_tenant(tenant)

    async def plans(self) -> list[tuple[str, Values]]:
        """Returns every plan with its limits, by name."""
        return [(name, await self._records.plan(name) or {}) for name in await self._records.plans()]

    async def set_plan(self, name: str, values: Values) -> Values:
        """Makes a plan or changes what is given, and returns its limits."""
        await self._records.set_plan(name, values)
        return await self._records.plan(name) or {}

    async def delete_plan(self, name: str) -> None:
        """Removes a plan; raises ApiError(PLAN_NOT_FOUND)."""
        if await self._records.plan(name) is None:
            raise ApiError(Reason.PLAN_NOT_FOUND)
        await self._records.delete_plan(name)


def _standing(limits: TenantLimits, bucket: Bucket) -> Standing:
    retry_after_s = None if bucket.passes else max(1, math.ceil(bucket.next_in_ms / 1000))
    return Standing(limits.burst, bucket.remaining, math.ceil(bucket.full_in_ms / 1000), retry_after_s)
