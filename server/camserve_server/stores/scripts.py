"""Lua scripts that run inside Redis, each a step that happens whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

# A script that is given this time takes Redis's own.
SERVER_CLOCK_MS = 0

# Names by hash, for metrics.
SCRIPTS: dict[str, str] = {}

# Keys and arguments.
Run = tuple[Sequence[str], Sequence[str | bytes | int]]


class Script:
    """A script of stores/lua, with the files it builds on put before it.

    Every script is safe to repeat: a lost connection makes the client send it again.
    """

    def __init__(self, name: str, *, after: Sequence[str] = ()) -> None:
        folder = resources.files("camserve_server.stores") / "lua"
        self.source = "\n".join((folder / f"{part}.lua").read_text() for part in (*after, name))
        self.sha = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        SCRIPTS[self.sha] = name

    async def run(self, redis: Redis, keys: Sequence[str], args: Sequence[str | bytes | int]) -> Any:
        """Returns the script's reply; it is sent whole only to a server that does not know it."""
        try:
            return await redis.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return await redis.eval(self.source, len(keys), *keys, *args)

    async def run_each(self, redis: Redis, runs: Sequence[Run]) -> list[Any]:
        """Returns the replies of several runs, which are sent together."""
        pipe = redis.pipeline(transaction=False)
        for keys, args in runs:
            pipe.evalsha(self.sha, len(keys), *keys, *args)
        try:
            return await pipe.execute()
        except NoScriptError:
            return [await self.run(redis, keys, args) for keys, args in runs]
