"""What tenants use: their buckets of requests, the images of their day, their running calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.redis import unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script

_TAKE = Script("rate_take", after=["clock"])
_ADMIT = Script("usage_admit", after=["clock", "usage"])
_RENEW = Script("usage_renew", after=["clock"])
_LEAVE = Script("usage_leave")
_READ = Script("usage_read", after=["clock", "usage"])


@dataclass(frozen=True, slots=True)
class Bucket:
    """How a tenant's bucket of requests stands: whether one may pass, how many more may, and when in ms."""

    passes: bool
    remaining: int
    full_in_ms: int
    next_in_ms: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call may not run, and in how many ms it may be otherwise, where that is known."""

    limit: Literal["quota", "concurrency"]
    retry_in_ms: int = 0


@dataclass(frozen=True, slots=True)
class Used:
    """What a tenant uses now; `resets_s` is when the next day begins, in unix seconds."""

    images: int
    running: int
    resets_s: int


class Usage:
    """The usage of all tenants, the same on every replica: one script and one clock count it.

    Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer. `now_ms` is Redis's own clock unless a
    caller gives another, as tests do.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def take(
        self, tenant: str, *, rate: int, burst: int, look: bool = False, now_ms: int = SERVER_CLOCK_MS
    ) -> Bucket:
        """Takes a request from the bucket, which gains `rate` a second up to `burst`; `look` leaves it as it is.

        A request that a lost connection makes the client send again may be counted twice.
        """
        return await self._take(tenant, now_ms, rate, burst, 0 if look else 1)

    async def give_back(self, tenant: str, *, rate: int, burst: int, now_ms: int = SERVER_CLOCK_MS) -> None:
        """Gives a request that was taken back to the bucket."""
        await self._take(tenant, now_ms, rate, burst, -1)

    async def _take(self, tenant: str, now_ms: int, rate: int, burst: int, count: int) -> Bucket:
        with unavailable_on_error():
            passes, left, full, following = await _TAKE.run(
                self._redis, [keys.rate(tenant)], [now_ms, rate, burst, count]
            )
        return Bucket(bool(passes), left, full, following)

    async def admit(
        self,
        tenant: str,
        call: str,
        *,
        images: int,
        images_per_day: int,
        concurrency: int,
        lease_ms: int,
        now_ms: int = SERVER_CLOCK_MS,
    ) -> Refusal | None:
        """Lets a call run for the lease and charges its images, or returns why not; a call that runs may be charged."""
        args: list[int | str | bytes] = [now_ms, call, images, images_per_day, concurrency, lease_ms]
        with unavailable_on_error():
            verdict, *rest = await _ADMIT.run(self._redis, _places(tenant), args)
        return None if verdict == b"ok" else Refusal(verdict.decode(), *rest)

    async def renew(self, tenant: str, calls: Sequence[str], *, lease_ms: int, now_ms: int = SERVER_CLOCK_MS) -> None:
        """Prolongs the leases of calls that run."""
        with unavailable_on_error():
            await _RENEW.run(self._redis, _places(tenant), [now_ms, lease_ms, *calls])

    async def leave(self, tenant: str, call: str, *, refund: bool) -> None:
        """Ends a call; `refund` gives back the images that it was charged, if it is still the same day."""
        with unavailable_on_error():
            await _LEAVE.run(self._redis, _places(tenant), [call, int(refund)])

    async def read(self, tenant: str, *, now_ms: int = SERVER_CLOCK_MS) -> Used:
        """Returns what is used."""
        with unavailable_on_error():
            return Used(*await _READ.run(self._redis, _places(tenant), [now_ms]))


def _places(tenant: str) -> list[str]:
    return [keys.usage(tenant), keys.running(tenant)]
