"""Whether what Redis acknowledges is on its disk."""

from __future__ import annotations

from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from camserve_server.base.errors import ApiError, OperatorError, Reason
from camserve_server.stores.redis import text, unavailable_on_error

_log = structlog.get_logger("store")
_WAIT_MS = 1_500


class DurabilityError(OperatorError):
    """The server may lose what it acknowledged; the message says which setting to change."""


async def needs_wait(redis: Redis) -> bool:
    """Returns whether a write must be followed by WAITAOF to be on the disk: not with `appendfsync always`.

    A server that hides its configuration, as hosted ones do, is waited for. Raises DurabilityError for one without
    an append-only file, ApiError(STORE_UNAVAILABLE).
    """
    with unavailable_on_error():
        try:
            reply: Any = await redis.config_get("appendonly", "appendfsync")
        except ResponseError:
            _log.warning("the store does not show its configuration: it must keep an append-only file")
            return True
    settings = {text(name): text(value) for name, value in reply.items() if value}
    if settings.get("appendonly") != "yes":
        raise DurabilityError(
            "the Redis of CAMSERVE_REDIS_URL keeps no append-only file, so accepted jobs would not survive its "
            "restart: set `appendonly yes`, and `appendfsync always` for the shortest answers"
        )
    return settings.get("appendfsync") != "always"


class Disk:
    """Runs pipelines that must be on the server's disk before anybody is told; `wait` says that takes a WAITAOF."""

    def __init__(self, *, wait: bool = False) -> None:
        self.wait = wait

    async def execute(self, pipe: Pipeline) -> list[Any]:
        """Returns the replies of the commands in `pipe` once they are kept; raises ApiError(STORE_UNAVAILABLE)."""
        with unavailable_on_error():
            if not self.wait:
                return await pipe.execute()
            pipe.execute_command("WAITAOF", 1, 0, _WAIT_MS)
            *replies, (local, _) = await pipe.execute()
        if local < 1:
            raise ApiError(Reason.STORE_UNAVAILABLE)
        return replies
