"""What versions of models do, counted by every replica in spans of five seconds."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.redis import unavailable_on_error

SPAN_S = 5
# Beyond the window that is looked at, for replicas whose clocks differ.
_MARGIN_S = 60

# Counts by what is counted, of each series: a version in one role, or two versions that saw the same pictures.
Figures = dict[str, dict[str, float]]


def add(total: Figures, more: Mapping[str, Mapping[str, float]]) -> None:
    """Adds figures to others."""
    for series, counts in more.items():
        summed = total.setdefault(series, {})
        for name, count in counts.items():
            summed[name] = summed.get(name, 0) + count


class FigureRecords:
    """The figures of all replicas. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    They are not waited for until they are on the disk: what is lost with the server is a few seconds of counts.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        # Of this process: one that starts again must not replace what the one before has counted.
        self._replica = secrets.token_hex(8)

    async def write(self, spans: Mapping[tuple[str, int], Figures], *, keep_s: int) -> None:
        """Replaces what this replica has counted of some models, each in a span (the number of it since 1970)."""
        pipe = self._redis.pipeline(transaction=False)
        for (model, span), figures in spans.items():
            key = keys.model_figures(model, span)
            pipe.hset(key, self._replica, orjson.dumps(figures))
            pipe.expire(key, keep_s + _MARGIN_S)
        with unavailable_on_error():
            await pipe.execute()

    async def read(self, model: str, spans: Iterable[int]) -> dict[int, Figures]:
        """Returns what all replicas have counted together in each of the spans."""
        wanted = list(spans)
        pipe = self._redis.pipeline(transaction=False)
        for span in wanted:
            pipe.hvals(keys.model_figures(model, span))
        with unavailable_on_error():
            found: list[Any] = await pipe.execute()
        return {span: _together(replicas) for span, replicas in zip(wanted, found, strict=True)}


def _together(replicas: Iterable[bytes]) -> Figures:
    total: Figures = {}
    for figures in replicas:
        add(total, orjson.loads(figures))
    return total
