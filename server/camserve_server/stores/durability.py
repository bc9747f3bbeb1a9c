"""Whether what Redis acknowledges is on its disk."""

from __future__ import annotations

from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ResponseError

from camserve_server.base.errors import ApiError, OperatorError, Reason
from camserve_server.stores.cluster import ClusterRedis, pieces, primaries
from camserve_server.stores.redis import text, unavailable_on_error

_log = structlog.get_logger("store")
_WAIT_MS = 1_500


class DurabilityError(OperatorError):
    """The server may lose what it acknowledged; the message says which setting to change."""


class ClusterNotNamedError(OperatorError):
    """A node of a cluster was given as a single server; the message says how to name the cluster."""


async def check_whole(redis: Redis) -> None:
    """Raises ClusterNotNamedError where the server has only a part of the keys, ApiError(STORE_UNAVAILABLE)."""
    if isinstance(redis, ClusterRedis):
        return
    with unavailable_on_error():
        try:
            told = await redis.info("cluster")
        except ResponseError:  # hosted ones may hide it
            return
    if told.get("cluster_enabled"):
        raise ClusterNotNamedError(
            "the Redis of CAMSERVE_REDIS_URL is a node of a cluster: name some of its nodes and add the option, as in "
            "redis://10.0.0.5:6379,10.0.0.6:6379?cluster=true"
        )


async def needs_wait(redis: Redis) -> bool:
    """Returns whether a write must be followed by WAITAOF to be on the disk: not with `appendfsync always`.

    A server that hides its configuration, as hosted ones do, is waited for. Of a cluster every primary is asked. Raises
    DurabilityError for one without an append-only file, ApiError(STORE_UNAVAILABLE).
    """
    with unavailable_on_error():
        servers = await primaries(redis)
    return any([await _needs_wait(server) for server in servers])


async def _needs_wait(server: Redis) -> bool:
    with unavailable_on_error():
        try:
            reply: Any = await server.config_get("appendonly", "appendfsync")
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
        if not self.wait:
            with unavailable_on_error():
                return await pipe.execute()
        replies: list[Any] = []
        # What is on the disk of one server says nothing of another's.
        for piece in pieces(pipe):
            piece.execute_command("WAITAOF", 1, 0, _WAIT_MS)
            with unavailable_on_error():
                *some, (local, _) = await piece.execute()
            if local < 1:
                raise ApiError(Reason.STORE_UNAVAILABLE)
            replies += some
        return replies
