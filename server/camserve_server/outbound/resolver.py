"""Names to addresses, by the system's resolver in threads of our own."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_THREADS = 64
# A slow name keeps its thread after its caller has left: a tenant whose names are slow fills its own places only.
_AT_ONCE = 8

owner: ContextVar[str] = ContextVar("owner", default="")
"""On whose behalf the present call is made."""


class Resolver(AbstractResolver):
    """Resolves in threads, so that slow names hold up nothing else; a few at a time for each owner."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="resolver")
        self._busy: Counter[str] = Counter()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses; raises OSError for a name without one, and when the owner has too many under way."""
        name = owner.get()
        if self._busy[name] >= _AT_ONCE:
            raise OSError("too many names of one owner are being resolved")
        self._busy[name] += 1
        lookup = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        )
        lookup.add_done_callback(lambda done: self._done(name, done))
        rows = await asyncio.shield(lookup)
        return [
            ResolveResult(
                hostname=host,
                host=str(place[0]),
                port=int(place[1]),
                family=found,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for found, _, protocol, _, place in rows
        ]

    async def close(self) -> None:
        """Ends the threads as their lookups end."""
        with suppress(RuntimeError):
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, name: str, lookup: asyncio.Future[Any]) -> None:
        self._busy[name] -= 1
        if not self._busy[name]:
            del self._busy[name]
        if not lookup.cancelled():
            lookup.exception()  # told to whoever waits, if somebody still does
