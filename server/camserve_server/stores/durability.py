"""Whether what Redis acknowledges is on its disk."""

from __future__ import annotations

from typing import Any

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from camserve_server.base.errors import OperatorError
from camserve_server.stores.redis import text, unavailable_on_error

_log = structlog.get_logger("store")


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
