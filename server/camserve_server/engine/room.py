"""Room in memory for versions: those that were used least lately are set aside for others."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from camserve_server.engine.folders import Key
from camserve_server.engine.loader import Loader
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.served import Served

_log = structlog.get_logger("models")

# A version that was loaded on demand stays for some times of what that took, so that two that are asked for in turn do
# not spend the time on loading.
_STAYS_LOADS = 5.0
_STAYS_AT_LEAST_S = 2.0
_MEGABYTE = 1e6


class Room:
    """Makes room for versions in `limit_bytes`, which is what all together may take, None for no limit.

    `is_needed` says of a version that it stays, and comes in whatever it takes. `set_aside` unloads one. Of a loaded
    version `listed` returns what it is now, None where it is listed no longer: an alias may have moved.
    """

    def __init__(
        self,
        loader: Loader,
        limit_bytes: int | None,
        *,
        is_needed: Callable[[ModelVersion], bool],
        listed: Callable[[Key], ModelVersion | None],
        set_aside: Callable[[ModelVersion], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._loader = loader
        self._limit_bytes = limit_bytes
        self._is_needed = is_needed
        self._listed = listed
        self._set_aside = set_aside
        self._monotonic = monotonic
        self._stays_until: dict[Key, float] = {}

    def refusal(self, model: ModelVersion) -> str | None:
        """Returns why no room can be made for a version, whoever is set aside; None where it can, by and by."""
        if self._limit_bytes is None or self._is_needed(model):
            return None
        needed_bytes = sum(served.model.memory_bytes for served in self._others(model) if self._stays(served))
        if model.memory_bytes + needed_bytes <= self._limit_bytes:
            return None
        beside = f", of which versions in use take {needed_bytes / _MEGABYTE:.1f}" if needed_bytes else ""
        return (
            f"it takes {model.memory_bytes / _MEGABYTE:.1f} MB of memory, and models may take "
            f"{self._limit_bytes / _MEGABYTE:.1f}{beside}"
        )

    async def make(self, model: ModelVersion) -> bool:
        """Sets aside the versions that were used least lately until this one fits; False when it does not yet."""
        while self._limit_bytes is not None:
            others = self._others(model)
            taken_bytes = sum(served.model.memory_bytes for served in others)
            if model.memory_bytes + taken_bytes <= self._limit_bytes:
                break
            unneeded = [served for served in others if self._may_go(served)]
            if any(served.ends for served in others):
                await self._loader.unloaded()
            elif unneeded:
                self._set_aside(min(unneeded, key=lambda served: served.used).model)
            elif self._is_needed(model):
                _log.warning("versions in use need more memory than models may take", model=model.name)
                break
            else:
                return False
        return True

    def keep(self, key: Key, took_s: float) -> None:
        """Has a version stay for a while that was loaded on demand, which took so long."""
        self._stays_until[key] = self._monotonic() + max(_STAYS_AT_LEAST_S, _STAYS_LOADS * took_s)

    def forget(self, key: Key) -> None:
        """Forgets a version that is gone."""
        self._stays_until.pop(key, None)

    def _others(self, model: ModelVersion) -> list[Served]:
        return [served for served in self._loader.all() if served.model.key != model.key]

    def _may_go(self, served: Served) -> bool:
        if served.calls or self._stays_until.get(served.model.key, 0.0) > self._monotonic():
            return False
        return not self._stays(served)

    def _stays(self, served: Served) -> bool:
        listed = self._listed(served.model.key)
        return not served.ends and listed is not None and self._is_needed(listed)
