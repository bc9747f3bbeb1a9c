"""Places for lookups of names: who may begin, so that names which do not answer hold up little else."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from camserve_server.base.breaker import Monotonic

PLACES = 256
_OWNERS_MOST = 8
# Of what is free: as owners with slow names come, each gets less, and a place is left for one who has none.
_OWNERS_SHARE = 4
# As long as the system's resolver waits for the first of its servers before it asks again.
_SLOW_S = 5.0
# However many tenants have names at a place that does not answer, other names go on.
_SLOW_MOST = PLACES // 2
_MOST_REMEMBERED = 4096


class Name(NamedTuple):
    """What is looked up; lookups of the same under way are one."""

    owner: str
    host: str
    port: int
    family: int


@dataclass(slots=True, eq=False)
class Lookup:
    """A name that is looked up, or waits for a place; its callers share the answer."""

    name: Name
    answer: asyncio.Future[Any]
    callers: int = 0
    began: float | None = None
    was_slow: bool | None = None


class Places:
    """Places for lookups, in the order in which they came for each owner, owners taking turns.

    An owner has at most 8 places, and at most a quarter of what is free, but one while any is. A quarter of them is
    kept for names that were quick when they were looked up last. Those that were slow then, or are so now, have half
    of them; those of all owners that were have half of all.
    """

    def __init__(self, monotonic: Monotonic = time.monotonic) -> None:
        self._monotonic = monotonic
        self._free = PLACES
        self._slow_taken = 0
        self._waiting: OrderedDict[str, dict[Name, Lookup]] = OrderedDict()
        self._taken: dict[str, dict[Name, Lookup]] = {}
        self._slow: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._quick: OrderedDict[tuple[str, str], None] = OrderedDict()

    def find(self, name: Name) -> Lookup | None:
        """Returns the lookup of that name that is under way or waits."""
        return self._taken.get(name.owner, {}).get(name) or self._waiting.get(name.owner, {}).get(name)

    def wait(self, lookup: Lookup) -> None:
        """Adds one that comes last of its owner's."""
        self._waiting.setdefault(lookup.name.owner, {})[lookup.name] = lookup

    def give_up(self, lookup: Lookup) -> None:
        """Forgets one that waits."""
        _discard(self._waiting, lookup)

    def begin(self) -> Iterator[Lookup]:
        """Gives places to those who may begin now."""
        for owner in list(self._waiting):
            while (lookup := self._next(owner)) is not None:
                _discard(self._waiting, lookup)
                self._taken.setdefault(owner, {})[lookup.name] = lookup
                lookup.began, lookup.was_slow = self._monotonic(), self._was_slow(lookup)
                self._free -= 1
                self._slow_taken += lookup.was_slow is True
                if owner in self._waiting:
                    self._waiting.move_to_end(owner)
                yield lookup

    def end(self, lookup: Lookup) -> None:
        """Frees the place of one that is over."""
        kept, other = (self._slow, self._quick) if self._is_late(lookup) else (self._quick, self._slow)
        _discard(self._taken, lookup)
        self._free += 1
        self._slow_taken -= lookup.was_slow is True
        name = (lookup.name.owner, lookup.name.host)
        other.pop(name, None)
        kept[name] = None
        kept.move_to_end(name)
        if len(kept) > _MOST_REMEMBERED:
            kept.popitem(last=False)

    def close(self) -> list[Lookup]:
        """Forgets all that wait, and returns them."""
        waiting = [lookup for lookups in self._waiting.values() for lookup in lookups.values()]
        self._waiting.clear()
        return waiting

    def _next(self, owner: str) -> Lookup | None:
        taken = self._taken.get(owner, {}).values()
        most = min(_OWNERS_MOST, max(1, self._free // _OWNERS_SHARE))
        if not self._free or len(taken) >= most:
            return None
        slow = sum(lookup.was_slow or self._is_late(lookup) for lookup in taken)
        any_may = sum(lookup.was_slow is not False for lookup in taken) < most - most // 4
        slow_may = any_may and slow < max(1, most // 2) and self._slow_taken < _SLOW_MOST
        may = {False: True, None: any_may, True: slow_may}
        return next((one for one in self._waiting.get(owner, {}).values() if may[self._was_slow(one)]), None)

    def _was_slow(self, lookup: Lookup) -> bool | None:
        """Returns None for a name of which nothing is remembered."""
        name = (lookup.name.owner, lookup.name.host)
        return name in self._slow if name in self._slow or name in self._quick else None

    def _is_late(self, lookup: Lookup) -> bool:
        return lookup.began is not None and self._monotonic() - lookup.began > _SLOW_S


def _discard(lookups: dict[str, dict[Name, Lookup]], lookup: Lookup) -> None:
    of_owner = lookups.get(lookup.name.owner, {})
    if of_owner.pop(lookup.name, None) is not None and not of_owner:
        del lookups[lookup.name.owner]
