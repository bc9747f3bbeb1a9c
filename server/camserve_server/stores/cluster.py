"""A Redis Cluster, used like a single server: each command goes to the node that has its key."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, RedisError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

A = TypeVar("A")

_OPTION = "cluster"
# Those that the stores send without a key; every other one names its first key after it.
_WITHOUT_KEY = frozenset({"CLIENT", "CONFIG", "FLUSHALL", "INFO", "PING", "SCRIPT", "TIME", "WAITAOF"})
_SCRIPTS = frozenset({"EVAL", "EVALSHA"})
# A slot that moves to another node is asked for again after these pauses.
_PAUSES_S = (0.0, 0.05, 0.1, 0.2, 0.4)


def cluster_addresses(url: str) -> list[str] | None:
    """Returns an address for each node named in `redis://a:7000,b:7001?cluster=true`, None for a single server.

    Raises ValueError for several nodes without the option.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    wanted = options.pop(_OPTION, "false") == "true"
    account, at, hosts = parts.netloc.rpartition("@")
    if not wanted:
        if "," in hosts:
            raise ValueError(
                "several addresses of Redis are those of a cluster or of sentinels: add ?cluster=true or ?sentinel=NAME"
            )
        return None
    if parts.scheme not in ("redis", "rediss") or parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster is reached by redis:// or rediss://, and has one database")
    rest = parts._replace(path="", query=urlencode(options))
    return [urlunsplit(rest._replace(netloc=f"{account}{at}{host}")) for host in hosts.split(",")]


class ClusterRedis(Redis):
    """A client of a cluster; a command's keys, and those of a script, must lie in one slot.

    A pipeline is sent in pieces, each of neighbouring commands of one slot, one after the other. What is sent must be
    safe to repeat: a piece that meets a moving slot is sent again.
    """

    def __init__(self, urls: Sequence[str], open_node: Callable[[str], Redis]) -> None:
        self._first = urlsplit(urls[0])
        self._open = open_node
        self._nodes = {urlsplit(url).netloc.rpartition("@")[2]: open_node(url) for url in urls}
        self._starts: list[int] = []
        self._owners: list[Redis] = []
        self._learning = asyncio.Lock()
        super().__init__(connection_pool=next(iter(self._nodes.values())).connection_pool)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command to the node of its key, one without a key to any."""
        return await self.at(slot_of(args), lambda node: _ask(node, *args, **options))

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Returns a pipeline whose pieces are sent in their order."""
        return ClusterPipeline(self, transaction=transaction)

    async def primaries(self) -> list[Redis]:
        """Returns a client of each node that has slots; raises RedisError while none tells which they are."""
        if not self._owners:
            await self._learn(self._owners)
        return list(dict.fromkeys(self._owners))

    async def at(self, slot: int | None, send: Callable[[Redis], Awaitable[A]]) -> A:
        """Returns what `send` does with the node of a slot; raises what the node says, and RedisError."""
        for pause_s in _PAUSES_S:
            if pause_s:
                await asyncio.sleep(pause_s)
            owners = self._owners
            if not owners:
                await self._learn(owners)
                owners = self._owners
            node = owners[bisect_right(self._starts, slot or 0) - 1]
            try:
                return await send(node)
            except (AskError, TryAgainError):
                await self._learn(owners)
            except (RedisConnectionError, RedisTimeoutError, ClusterDownError):
                # By the next call another node may have taken its slots.
                self._forget(owners)
                raise
        raise ClusterDownError("a slot is on its way from one node to another")

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Closes the connections to every node."""
        for node in self._nodes.values():
            await node.aclose()

    def _forget(self, owners: list[Redis]) -> None:
        if owners is self._owners:
            self._owners = []

    async def _learn(self, known: list[Redis]) -> None:
        """Asks the nodes who has which slots, unless somebody else has since `known`."""
        async with self._learning:
            if self._owners is not known and self._owners:
                return
            last: Exception = ClusterDownError("no node of the cluster knows who has the slots")
            for name, node in list(self._nodes.items()):
                try:
                    rows: list[Any] = await _ask(node, "CLUSTER SLOTS")
                except (RedisError, OSError) as error:
                    last = error
                    # The next one who asks begins with another node.
                    self._nodes[name] = self._nodes.pop(name)
                    continue
                if rows:
                    rows.sort(key=lambda row: int(row[0]))
                    self._starts = [int(start) for start, *_ in rows]
                    self._owners = [self._node(name, owner[0], int(owner[1])) for _, _, owner, *_ in rows]
                    return
            raise last

    def _node(self, told_by: str, host: bytes | str | None, port: int) -> Redis:
        """Returns a client of a node by the address that another one tells; without a host it is that one's."""
        told = host.decode() if isinstance(host, bytes) else host
        if not told or told == "?":
            told = told_by.rpartition(":")[0] or told_by
        name = f"[{told}]:{port}" if ":" in told and not told.startswith("[") else f"{told}:{port}"
        if name not in self._nodes:
            self._nodes[name] = self._open(urlunsplit(self._first._replace(netloc=_account(self._first) + name)))
        return self._nodes[name]


class ClusterPipeline(Pipeline):
    """Commands that are sent together as far as they are of one slot."""

    def __init__(self, cluster: ClusterRedis, *, transaction: bool) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, transaction, None)
        self._cluster = cluster

    def pieces(self) -> list[ClusterPipeline]:
        """Returns the pipelines of one slot each that this one is sent as; a command without a key goes along."""
        found: list[tuple[int | None, ClusterPipeline]] = []
        for command in self.command_stack:
            slot = slot_of(command[0])
            if found and (slot is None or found[-1][0] in (None, slot)):
                before, piece = found.pop()
                found.append((slot if before is None else before, piece))
            else:
                piece = ClusterPipeline(self._cluster, transaction=self.is_transaction)
                found.append((slot, piece))
            piece.command_stack.append(command)
        return [piece for _, piece in found]

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Returns the replies of all commands; raises the first error of a piece, after which no other one is sent."""
        pieces = self.pieces()
        if len(pieces) > 1:
            if self.is_transaction:
                raise ValueError("a transaction has keys of several slots")
            return [reply for piece in pieces for reply in await piece.execute(raise_on_error)]
        commands, self.command_stack = self.command_stack, []
        slots = [slot for args, _ in commands if (slot := slot_of(args)) is not None]

        async def send(node: Redis) -> list[Any]:
            pipe = node.pipeline(transaction=self.is_transaction)
            pipe.command_stack = list(commands)
            return await pipe.execute(raise_on_error)

        return await self._cluster.at(slots[0] if slots else None, send)


def pieces(pipe: Pipeline) -> Sequence[Pipeline]:
    """Returns the pipelines that a pipeline is sent as, each to one server."""
    return pipe.pieces() if isinstance(pipe, ClusterPipeline) else [pipe]


async def primaries(redis: Redis) -> list[Redis]:
    """Returns a client of each server that keeps a part of the state."""
    return await redis.primaries() if isinstance(redis, ClusterRedis) else [redis]


def slot_of(args: Sequence[Any]) -> int | None:
    """Returns the slot of a command's first key, None for a command without one."""
    name = str(args[0]).upper()
    if name.partition(" ")[0] in _WITHOUT_KEY:
        return None
    if name in _SCRIPTS:
        if not int(args[2]):
            return None
        key = args[3]
    else:
        key = args[1]
    return key_slot(key.encode() if isinstance(key, str) else bytes(key))


async def _ask(node: Redis, *args: Any, **options: Any) -> Any:
    return await node.execute_command(*args, **options)  # type: ignore[no-untyped-call]


def _account(address: SplitResult) -> str:
    account, at, _ = address.netloc.rpartition("@")
    return account + at
