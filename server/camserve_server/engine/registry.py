"""Which versions are loaded: those that lie in the model folders, as they come and go while the replica runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.engine.catalog import Catalog, Key
from camserve_server.engine.folders import Place, find_places
from camserve_server.engine.loader import Loader
from camserve_server.engine.manifest import UnloadableError, read_aliases, read_manifest
from camserve_server.engine.model import ModelVersion, with_golden
from camserve_server.engine.served import Served

_log = structlog.get_logger("models")

# A version that was loaded on demand stays for some times of what that took, so that two that are asked for in turn do
# not spend the time on loading.
_STAYS_LOADS = 5.0
_STAYS_AT_LEAST_S = 2.0
_OTHER_CONTENT = "this version had other content before: give what is new a version of its own"


class Registry:
    """Loads and unloads versions as their folders come and go; its methods belong to the event loop.

    `is_needed` says of a version that it stays loaded whatever becomes of its folder and of the memory: as it is here,
    one that an alias leads to. `memory_bytes` is what all versions together may take, None for no limit.
    """

    def __init__(
        self,
        models_dirs: tuple[Path, ...],
        loader: Loader,
        *,
        memory_bytes: int | None,
        look_interval_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.is_needed: Callable[[ModelVersion], bool] = lambda model: bool(model.aliases)
        self._models_dirs = models_dirs
        self._loader = loader
        self._memory_bytes = memory_bytes
        self._look_interval_s = look_interval_s
        self._monotonic = monotonic
        self._catalog = Catalog()
        self._places: dict[Key, Place] = {}
        self._hashes: dict[Key, str] = {}
        self._load_s: dict[Key, float] = {}
        self._set_aside: set[Key] = set()
        self._stays_until: dict[Key, float] = {}
        self._told: dict[Key, object] = {}
        self._loads: dict[Key, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._looks = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when every version found is ready or unavailable, and looks for others from then on."""
        await self.look()
        await self.settled()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Stops looking, loading and unloading."""
        await ended([*self._loads.values(), *([self._watching] if self._watching else [])])
        await self._loader.close()

    async def settled(self) -> None:
        """Returns when everything that was begun is loaded or unloaded."""
        while self._loads:
            await asyncio.wait(self._loads.values())
        await self._loader.unloaded()

    def models(self) -> list[ModelVersion]:
        """Returns every version, whatever its state, by name, then version."""
        return self._catalog.models()

    def has_version(self, name: str, version: str) -> bool:
        """Returns whether there is a version of that name, whatever its state; an alias is none."""
        return self._catalog.named(name, version) is not None

    def resolve(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns the version that serves. One that was set aside for want of memory begins to load.

        Raises ApiError MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND or MODEL_UNAVAILABLE.
        """
        model = self._catalog.find(name, version_or_alias)
        if model.key in self._set_aside:
            self._begin_load(model.key)
            wait_s = max(1, math.ceil(self._load_s.get(model.key, 0)))
            raise ApiError(Reason.MODEL_UNAVAILABLE, retry_after_s=wait_s, why="the version is loaded on demand")
        return self._catalog.resolve(name, version_or_alias)

    async def rerun_golden(self, name: str, version: str) -> ModelVersion:
        """Runs the golden inputs of a ready version anew, and returns it as it is listed from then on.

        Raises ApiError as `resolve` does, and CIRCUIT_OPEN while the version is left alone.
        """
        served = self._loader.served(self.resolve(name, version))
        served.breaker.check()
        place = self._places[served.model.key]
        with served.kept():
            checked = await served.runner.call(lambda: _checked(place.folder, served.model))
            if not served.ends:
                served.model = checked
                self._set(checked)
        return checked

    async def look(self) -> None:
        """Looks into the folders now, and begins what follows from it."""
        async with self._looks:
            places = await asyncio.to_thread(find_places, self._models_dirs)
            for key, place in places.items():
                self._consider(key, place)
            for key in self._places.keys() - places.keys():
                self._consider_vanished(key)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._look_interval_s)
            try:
                await self.look()
            except OSError as error:
                _log.warning("the model folders cannot be read", error=type(error).__name__)

    def _consider(self, key: Key, place: Place) -> None:
        model, known = self._catalog.get(key), self._places.get(key)
        if place.retired:
            if model is None or model.state != "retired":
                self._places[key] = place
                self._retire(key)
        elif model is None or known is None or model.state == "retired":
            self._places[key] = place
            self._catalog.set(ModelVersion(*key, "loading", read_aliases(place.folder)))
            self._begin_load(key)
        elif known.signature != place.signature and key not in self._loads:
            if model.state == "unavailable":
                self._places[key] = place
                self._begin_load(key)
            else:
                self._tell_once(key, place.signature, "files of a version changed; what was loaded of it serves on")

    def _consider_vanished(self, key: Key) -> None:
        model = self._catalog.get(key)
        if not self._places[key].folder.parents[1].is_dir():
            self._tell_once(key, "away", "a models folder is gone; what was loaded from it serves on")
        elif model is not None and model.state == "ready" and self.is_needed(model):
            self._tell_once(key, "needed", "the folder of a version in use is gone; the version serves on")
        else:
            self._drop(key)
            self._catalog.remove(key)
            del self._places[key]
            _log.info("model", model=key[0], version=key[1], state="gone")

    def _tell_once(self, key: Key, what: object, message: str) -> None:
        if self._told.get(key) != what:
            self._told[key] = what
            _log.warning(message, model=key[0], version=key[1])

    def _retire(self, key: Key) -> None:
        self._drop(key)
        known = self._catalog.get(key) or ModelVersion(*key, "retired", read_aliases(self._places[key].folder))
        self._set(replace(_without_module(known), state="retired", reason=None))

    def _drop(self, key: Key) -> None:
        """Ends whatever a version has here."""
        if loading := self._loads.pop(key, None):
            loading.cancel()
        self._set_aside.discard(key)
        for known in (self._told, self._load_s, self._stays_until):
            known.pop(key, None)
        if model := self._catalog.get(key):
            self._loader.unload(model)

    def _begin_load(self, key: Key) -> None:
        if key not in self._loads:
            self._loads[key] = task = asyncio.create_task(self._load(key))
            task.add_done_callback(lambda _: self._forget_load(key, task))

    def _forget_load(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._loads.get(key) is task:
            del self._loads[key]

    async def _load(self, key: Key) -> None:
        # Random weights come from generators that all threads share.
        async with self._one_at_a_time:
            known = self._catalog.get(key)
            if known is None or not await self._has_room(known):
                return
            began = self._monotonic()
            model = await self._loaded(key)
            took_s = self._load_s[key] = self._monotonic() - began
            if key in self._set_aside:
                self._stays_until[key] = self._monotonic() + max(_STAYS_AT_LEAST_S, _STAYS_LOADS * took_s)
            self._set_aside.discard(key)
            if model.state != "ready":
                self._set(model)
            elif self._hashes.setdefault(key, model.content_hash) != model.content_hash:
                self._loader.unload(model)
                self._set(replace(_without_module(model), state="unavailable", reason=_OTHER_CONTENT))
            elif not await self._has_room(model):
                self._loader.unload(model)
                self._set(replace(_without_module(model), state="loading"))
            else:
                self._set(model)

    async def _loaded(self, key: Key) -> ModelVersion:
        folder = self._places[key].folder
        try:
            return await self._loader.load(folder)
        except Exception as error:
            _log.exception("a version cannot be loaded", model=key[0], version=key[1])
            reason = f"loading failed ({type(error).__name__})"
            return ModelVersion(*key, "unavailable", read_aliases(folder), reason=reason)

    async def _has_room(self, model: ModelVersion) -> bool:
        """Sets aside the versions that were used least lately until this one fits; False when it cannot."""
        while self._memory_bytes is not None:
            others = [served for served in self._loader.all() if served.model.key != model.key]
            taken_bytes = sum(served.model.memory_bytes for served in others)
            if model.memory_bytes + taken_bytes <= self._memory_bytes:
                break
            unneeded = [served for served in others if self._may_go(served)]
            if any(served.ends for served in others):
                await self._loader.unloaded()
            elif unneeded:
                self._set_version_aside(min(unneeded, key=lambda served: served.used).model)
            elif self.is_needed(model):
                _log.warning("versions in use need more memory than models may take", model=model.name)
                break
            else:
                self._set_aside.add(model.key)
                return False
        return True

    def _may_go(self, served: Served) -> bool:
        if served.calls or self._stays_until.get(served.model.key, 0.0) > self._monotonic():
            return False
        # As it is listed now: an alias may have moved since it was loaded.
        listed = self._catalog.get(served.model.key)
        return listed is None or not self.is_needed(listed)

    def _set_version_aside(self, model: ModelVersion) -> None:
        self._set_aside.add(model.key)
        self._set(replace(_without_module(model), state="loading"))
        self._loader.unload(model)

    def _set(self, model: ModelVersion) -> None:
        self._catalog.set(model)
        _log.info(
            "model",
            model=model.name,
            version=model.version,
            state=model.state,
            reason=model.reason,
            golden=model.golden,
        )


def _checked(folder: Path, model: ModelVersion) -> ModelVersion:
    try:
        return with_golden(folder, read_manifest(folder), model)
    except UnloadableError as error:
        return replace(model, golden="failed", golden_reason=str(error))


def _without_module(model: ModelVersion) -> ModelVersion:
    return replace(model, module=None, preprocess=None)
