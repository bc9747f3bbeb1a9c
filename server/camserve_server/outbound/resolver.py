"""Names to addresses, by the system's resolver in threads of our own."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from camserve_server.outbound.places import PLACES, Lookup, Name, Places


@dataclass(slots=True)
class Caller:
    """On whose behalf a call is made; `untried` when it was given up while its name waited for a place."""

    owner: str = ""
    untried: bool = False


caller: ContextVar[Caller] = ContextVar("caller")
"""Who makes the present call."""


class Resolver(AbstractResolver):
    """Resolves in threads, so that slow names hold up nothing else.

    A thread is busy until its name is resolved, whether or not somebody still waits; so callers of one owner share the
    lookups of the same name, and lookups wait for places.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._threads = ThreadPoolExecutor(PLACES, thread_name_prefix="resolver")
        self._places = Places(monotonic)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Returns the addresses, as late as the caller waits; raises OSError for a name without one."""
        who = caller.get(None) or Caller()
        name = Name(who.owner, host, port, family)
        lookup = self._places.find(name)
        if lookup is None:
            lookup = Lookup(name, asyncio.get_running_loop().create_future())
            self._places.wait(lookup)
            self._begin()
        lookup.callers += 1
        try:
            rows = await asyncio.shield(lookup.answer)
        except asyncio.CancelledError:
            who.untried = lookup.began is None
            raise
        finally:
            lookup.callers -= 1
            if not lookup.callers and lookup.began is None:
                self._places.give_up(lookup)
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
        for lookup in self._places.close():
            lookup.answer.set_exception(OSError("the resolver is closed"))
            lookup.answer.exception()
        with suppress(RuntimeError):
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        for lookup in self._places.begin():
            _, host, port, family = lookup.name
            rows = asyncio.get_running_loop().run_in_executor(
                self._threads, partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
            )
            rows.add_done_callback(partial(self._end, lookup))

    def _end(self, lookup: Lookup, rows: asyncio.Future[Any]) -> None:
        self._places.end(lookup)
        if error := OSError("the resolver is closed") if rows.cancelled() else rows.exception():
            lookup.answer.set_exception(error)
            lookup.answer.exception()  # told to whoever waits, if somebody still does
        else:
            lookup.answer.set_result(rows.result())
        self._begin()
