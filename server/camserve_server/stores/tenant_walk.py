"""A walk through all tenants, a page at a time: what looks after them must not cost more the more of them there are."""

from __future__ import annotations

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.redis import text, unavailable_on_error

# Pages are short, so that reading one does not keep others from the event loop.
_PAGE = 100


class TenantWalk:
    """Names every known tenant in turn, from the beginning again after the last."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._cursor = 0

    async def page(self) -> tuple[list[str], bool]:
        """Returns the next tenants, about a hundred, and whether the walk ends with them.

        A tenant that is there during the whole walk is named in it, at least once. Raises
        ApiError(STORE_UNAVAILABLE); the walk goes on after that.
        """
        with unavailable_on_error():
            self._cursor, members = await self._redis.sscan(keys.known_tenants(), self._cursor, count=_PAGE)
        return [text(member) for member in members], self._cursor == 0
