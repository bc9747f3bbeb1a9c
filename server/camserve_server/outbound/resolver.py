"""Names to addresses, by the system's resolver in threads of our own."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Thread
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from camserve_server.outbound.places import Lookup, Name, Places


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

    def __init__(self) -> None:
        self._places = Places()

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
        """Begins no more lookups; threads end as theirs do."""
        for lookup in self._places.close():
            lookup.answer.set_exception(OSError("the resolver is closed"))
            lookup.answer.exception()

    def _begin(self) -> None:
        for lookup in self._places.begin():
            # Not one of a pool, whose threads a process waits for when it ends.
            thread = Thread(target=self._look_up, args=(lookup,), name="resolver", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                refusal = OSError("there is no thread for it")
                lookup.answer.get_loop().call_soon(self._end, lookup, refusal)

    def _look_up(self, lookup: Lookup) -> None:
        _, host, port, family = lookup.name
        rows: list[Any] | Exception
        try:
            rows = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        except Exception as error:
            rows = error
        with suppress(RuntimeError):  # the loop is closed
            lookup.answer.get_loop().call_soon_threadsafe(self._end, lookup, rows)

    def _end(self, lookup: Lookup, rows: list[Any] | Exception) -> None:
        self._places.end(lookup)
        if isinstance(rows, Exception):
            lookup.answer.set_exception(rows)
            lookup.answer.exception()  # told to whoever waits, if somebody still does
        else:
            lookup.answer.set_result(rows)
        self._begin()
