"""Rates counted in this process alone, for as long as the store that counts for all is away."""

from __future__ import annotations

import math

from camserve_server.base.clock import Clock
from camserve_server.stores.usage import Bucket

_REMEMBERED = 10_000


class LocalRate:
    """A bucket of requests for each tenant, as `rate_take.lua` has it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, tenant: str, rate: int, burst: int) -> Bucket:
        """Takes a request from the bucket, which gains `rate` a second up to `burst`."""
        now = self._clock.monotonic()
        tokens, at = self._buckets.pop(tenant, (float(burst), now))
        tokens = min(burst, tokens + (now - at) * rate)
        passes = tokens >= 1
        tokens -= passes
        if len(self._buckets) >= _REMEMBERED:
            # Whoever asked least lately has had the most time to fill up.
            self._buckets.pop(next(iter(self._buckets)))
        self._buckets[tenant] = (tokens, now)
        next_in_s = max(0.0, 1 - tokens) / rate
        return Bucket(passes, int(tokens), math.ceil((burst - tokens) / rate * 1000), math.ceil(next_in_s * 1000))
