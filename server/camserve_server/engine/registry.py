"""Which versions are loaded: those that lie in the model folders, as they come and go while the replica runs."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.engine.catalog import Catalog
from camserve_server.engine.folders import Key, Place, find_places
from camserve_server.engine.loader import Loader
from camserve_server.engine.manifest import read_aliases
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.room import Room
from camserve_server.engine.weights import file_bytes

_log = structlog.get_logger("models")

_OTHER_CONTENT = "this version had other content before: give what is new a version of its own"


class Registry:
    """Loads and unloads versions as their folders come and go; its methods belong to the event loop.

    `is_needed` says of a version that it stays loaded whatever becomes of its folder and of the memory: as it is here,
    one that an alias leads to. `memory_bytes` is what all versions together may take, None for no limit. `load_wait_s`
    is how long others wait while a version loads.
    """

    def __init__(
        self,
        models_dirs: tuple[Path, ...],
        loader: Loader,
        *,
        memory_bytes: int | None,
        load_wait_s: float,
        look_interval_s: float,
        monotonic: Callable[[], float],
    ) -> None:
        self.is_needed: Callable[[ModelVersion], bool] = lambda model: bool(model.aliases)
        self._models_dirs = models_dirs
        self._loader = loader
        self._load_wait_s = load_wait_s
        self._look_interval_s = look_interval_s
        self._monotonic = monotonic
        self._catalog = Catalog()
        self._places: dict[Key, Place] = {}
        self._hashes: dict[Key, str] = {}
        self._load_s: dict[Key, float] = {}
        self._set_aside: set[Key] = set()
        self._told: dict[Key, object] = {}
        self._loads: dict[Key, asyncio.Task[None]] = {}
        # Those that have had their turn.
        self._late: dict[Key, asyncio.Task[None]] = {}
        self._room = Room(
            loader,
            memory_bytes,
            is_needed=lambda model: self.is_needed(model),
            listed=self._catalog.get,
            set_aside=self._set_version_aside,
            monotonic=monotonic,
        )
        self._one_at_a_time = asyncio.Lock()
        self._looks = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when every version found is ready or unavailable, or has had `load_wait_s` for it.

        Looks for others, and for those that go, from the beginning on.
        """
        await self.look()
        self._watching = asyncio.create_task(self._watch())
        while self._loads:
            await asyncio.wait(self._loads.values())

    async def close(self) -> None:
        """Stops looking, loading and unloading."""
        watching = [self._watching] if self._watching else []
        await ended([*watching, *self._loads.values(), *self._late.values()])
        await self._loader.close()

    async def settled(self) -> None:
        """Returns when everything that was begun is loaded or unloaded."""
        while begun := [*self._loads.values(), *self._late.values()]:
            await asyncio.wait(begun)
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
            if why := self._room.refusal(model):
                raise ApiError(Reason.MODEL_UNAVAILABLE, why=why)
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
            checked = await served.runner.check_golden(place.folder)
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
            for key in sorted(self._set_aside):
                model = self._catalog.get(key)
                if model and self.is_needed(model):
                    self._begin_load(key)

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
        elif known.signature != place.signature and not self._is_loading(key):
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
        for begun in (self._loads, self._late):
            if loading := begun.pop(key, None):
                loading.cancel()
        self._set_aside.discard(key)
        self._room.forget(key)
        for known in (self._told, self._load_s):
            known.pop(key, None)
        if model := self._catalog.get(key):
            self._loader.unload(model)

    def _begin_load(self, key: Key) -> None:
        if not self._is_loading(key):
            self._follow(self._loads, key, self._load(key))

    def _is_loading(self, key: Key) -> bool:
        return key in self._loads or key in self._late

    def _follow(self, begun: dict[Key, asyncio.Task[None]], key: Key, load: Coroutine[Any, Any, None]) -> None:
        begun[key] = task = asyncio.create_task(load)

        def forget(_: asyncio.Task[None]) -> None:
            if begun.get(key) is task:
                del begun[key]

        task.add_done_callback(forget)

    async def _load(self, key: Key) -> None:
        # Random weights come from generators that all threads share; a load that takes long has drawn its own by then.
        async with self._one_at_a_time:
            known = self._catalog.get(key)
            if known is None or not await self._has_room(await self._sized(known)):
                return
            began = self._monotonic()
            loading = asyncio.create_task(self._loaded(key))
            try:
                await asyncio.wait([loading], timeout=self._load_wait_s)
                if loading.done():
                    await self._take_in(key, loading.result(), began)
                    return
            except asyncio.CancelledError:
                self._give_up(loading)
                raise
        _log.warning("a version takes long to load; others no longer wait for it", model=key[0], version=key[1])
        self._follow(self._late, key, self._load_late(key, loading, began))

    async def _load_late(self, key: Key, loading: asyncio.Task[ModelVersion], began: float) -> None:
        try:
            model = await loading
            async with self._one_at_a_time:
                await self._take_in(key, model, began)
        except asyncio.CancelledError:
            self._give_up(loading)
            raise

    def _give_up(self, loading: asyncio.Task[ModelVersion]) -> None:
        if not loading.done():
            loading.cancel()
        elif not loading.cancelled():
            self._loader.unload(loading.result())

    async def _take_in(self, key: Key, model: ModelVersion, began: float) -> None:
        """Lists what came of loading a version since `began`, and has it serve where there is room."""
        took_s = self._load_s[key] = self._monotonic() - began
        if key in self._set_aside:
            self._room.keep(key, took_s)
        self._set_aside.discard(key)
        if model.state != "ready":
            self._set(model)
        elif self._hashes.setdefault(key, model.content_hash) != model.content_hash:
            self._loader.unload(model)
            self._set(replace(_without_module(model), state="unavailable", reason=_OTHER_CONTENT))
        elif await self._has_room(model):
            self._set(model)
        else:
            self._loader.unload(model)

    async def _loaded(self, key: Key) -> ModelVersion:
        folder = self._places[key].folder
        try:
            return await self._loader.load(folder)
        except Exception as error:
            _log.exception("a version cannot be loaded", model=key[0], version=key[1])
            reason = f"loading failed ({type(error).__name__})"
            return ModelVersion(*key, "unavailable", read_aliases(folder), reason=reason)

    async def _sized(self, model: ModelVersion) -> ModelVersion:
        """Returns a version that is to be loaded with the aliases that it claims, and the memory that it will take."""
        folder = self._places[model.key].folder
        loaded_before = model.key in self._hashes
        memory_bytes = model.memory_bytes if loaded_before else await asyncio.to_thread(file_bytes, folder)
        return replace(model, aliases=read_aliases(folder), memory_bytes=memory_bytes)

    async def _has_room(self, model: ModelVersion) -> bool:
        """Makes room for a version; where that does not go it is set aside, and nobody else where it never goes."""
        why = self._room.refusal(model)
        if why is None and await self._room.make(model):
            return True
        self._set_aside.add(model.key)
        self._set(replace(_without_module(model), state="unavailable" if why else "loading", reason=why))
        return False

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
            precision=model.precision,
            precision_reason=model.precision_reason,
        )


def _without_module(model: ModelVersion) -> ModelVersion:
    return replace(model, module=None, preprocess=None)
