"""Limits as they are set: plans, and what single tenants have of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.typing import EncodableT, FieldT

from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import text, unavailable_on_error

_PLAN = "plan"

Values = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """A tenant's plan, if it has one, and its own limits by name."""

    plan: str | None
    values: Values


class LimitRecords:
    """The limits of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    What is set is on the disk.
    """

    def __init__(self, redis: Redis, disk: Disk) -> None:
        self._redis = redis
        self._disk = disk

    async def tenant(self, tenant: str) -> TenantRecord:
        """Returns what is set for a tenant, which may be nothing."""
        fields = await self._hash(keys.limits(tenant))
        plan = fields.pop(_PLAN, "")
        return TenantRecord(plan or None, _values(fields))

    async def tenants(self) -> list[str]:
        """Returns the tenants for which something is set, by name."""
        with unavailable_on_error():
            return sorted(text(name) for name in await self._redis.smembers(keys.limited_tenants()))

    async def set_tenant(self, tenant: str, plan: str | None, values: Values) -> None:
        """Changes what is given; an empty plan takes it away, None leaves it."""
        fields = {name: str(value) for name, value in values.items()}
        if plan is not None:
            fields[_PLAN] = plan
        # First the listing: limits that are in force are never missing from it.
        await self._set(keys.limited_tenants(), tenant, keys.limits(tenant), fields)

    async def reset_tenant(self, tenant: str) -> None:
        """Removes what is set for a tenant."""
        await self._remove(keys.limited_tenants(), tenant, keys.limits(tenant))

    async def plan(self, name: str) -> Values | None:
        """Returns a plan's limits, None when there is no such plan."""
        with unavailable_on_error():
            if not await self._redis.sismember(keys.plans(), name):
                return None
        return _values(await self._hash(keys.plan(name)))

    async def plans(self) -> list[str]:
        """Returns the plans, by name."""
        with unavailable_on_error():
            return sorted(text(name) for name in await self._redis.smembers(keys.plans()))

    async def set_plan(self, name: str, values: Values) -> None:
        """Makes a plan or changes what is given."""
        fields = {each: str(value) for each, value in values.items()}
        await self._set(keys.plans(), name, keys.plan(name), fields)

    async def delete_plan(self, name: str) -> None:
        """Removes a plan."""
        await self._remove(keys.plans(), name, keys.plan(name))

    async def _hash(self, place: str) -> dict[str, str]:
        with unavailable_on_error():
            fields = await self._redis.hgetall(place)
        return {text(name): text(value) for name, value in fields.items()}

    async def _set(self, listing: str, name: str, place: str, values: Mapping[str, str]) -> None:
        fields: dict[FieldT, EncodableT] = dict(values.items())
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(listing, name)
        if fields:
            pipe.hset(place, mapping=fields)
        await self._disk.execute(pipe)

    async def _remove(self, listing: str, name: str, place: str) -> None:
        pipe = self._redis.pipeline(transaction=False)
        pipe.delete(place)
        pipe.srem(listing, name)
        await self._disk.execute(pipe)


def _values(fields: Mapping[str, str]) -> dict[str, int]:
    return {name: int(value) for name, value in fields.items()}
