"""The connection to Redis or Valkey, and what its failures become."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import store_timed
from camserve_server.stores import keys
from camserve_server.stores.cluster import ClusterRedis, cluster_addresses
from camserve_server.stores.scripts import SCRIPTS
from camserve_server.stores.sentinels import SentinelConnection, sentinel_address

_CHECK_MS = 60_000


def connect(url: str, *, timeout_s: float = 2.0, max_connections: int = 64) -> Redis:
    """Returns a client for a `redis://`, `rediss://` or `unix://` address; it connects when first used.

    A cluster has the option `cluster=true`, and a server that sentinels know their name for it, as in
    `redis://a:26379,b:26379?sentinel=NAME`; both may have several nodes named. Raises ValueError for an address that is
    none.

    Replies are bytes, in RESP3. `timeout_s` bounds connecting, each reply and the wait for a free connection.
    A lost connection is tried again once, so whatever is sent must be safe to repeat; a reply that is
    late is not asked for again, because a slow server needs no second copy of its work. A connection to a server
    that has become a replica counts as lost, because another one is the primary by now.
    """
    watched = sentinel_address(url, timeout_s)
    url = watched[0] if watched else url
    nodes = cluster_addresses(url)
    if nodes:
        return ClusterRedis(
            nodes, lambda address: connect(address, timeout_s=timeout_s, max_connections=max_connections)
        )
    pool = BlockingConnectionPool.from_url(
        url,
        protocol=3,
        max_connections=max_connections,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        health_check_interval=15,
        # With a slow server calls wait for every question on a new connection, so there is only that for the protocol.
        driver_info=None,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        retry=Retry(
            ExponentialWithJitterBackoff(base=0.01, cap=0.1),
            retries=1,
            supported_errors=(RedisConnectionError,),
        ),
    )
    found: tuple[type, ...] = (_Connection, pool.connection_class)
    if watched:
        found = (_Connection, SentinelConnection, pool.connection_class)
    pool.connection_class = type("Connection", found, {"sentinels": watched and watched[1]})
    return _TimedRedis.from_pool(pool)


class _TimedRedis(Redis):
    """Measures each question, by its command or by the script that it runs."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with store_timed("redis", _operation(args), _failed):
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _TimedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _TimedPipeline(Pipeline):
    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        with store_timed("redis", "pipeline", _failed):
            return await super().execute(raise_on_error)


def _operation(command: Sequence[Any]) -> str:
    return SCRIPTS.get(command[1], "eval") if command[0] == "EVALSHA" else str(command[0]).lower()


def _failed(error: Exception) -> bool:
    # A server that does not know a script is sent it.
    return not isinstance(error, NoScriptError)


class _Connection(AbstractConnection):
    """Closes itself when it leads to a replica: the address may lead to another server the next time."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        # A connection that is new needs no proof that it is alive.
        await super().on_connect_check_health(check_health=False)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ReadOnlyError as error:
            raise RedisConnectionError("the server has become a replica") from error


@contextlib.contextmanager
def unavailable_on_error() -> Iterator[None]:
    """Turns what goes wrong between us and the server into ApiError(STORE_UNAVAILABLE).

    Every use of a client in the stores stands in one of these.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise ApiError(Reason.STORE_UNAVAILABLE) from error


def text(reply: bytes | str) -> str:
    """Returns a reply as text."""
    return reply.decode() if isinstance(reply, bytes) else reply


async def check(redis: Redis) -> None:
    """Returns when the server has kept something; raises ApiError(STORE_UNAVAILABLE) when it cannot, as when full."""
    with unavailable_on_error():
        await redis.set(keys.check(), b"", px=_CHECK_MS)
