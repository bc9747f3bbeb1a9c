"""Which version of a model answers a call: the routes as every replica knows them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import ROUTES_REVISION, ROUTES_UNSEEN
from camserve_server.engine.engine import Engine
from camserve_server.engine.manifest import DEFAULT_ALIAS
from camserve_server.engine.model import ModelVersion
from camserve_server.stores.model_routes import Canary, Deprecation, RouteRecord, RouteRecords, Routes, Shadow

_log = structlog.get_logger("routes")

# A change is known everywhere within two seconds; that this is a quarter of it leaves room for a slow store.
_LOOK_INTERVAL_S = 0.5
# A float has room for more than these, so that no point is rounded up to 100 %.
_HASH_BYTES = 4
_HASHES = float(1 << 8 * _HASH_BYTES)


@dataclass(frozen=True, slots=True)
class Choice:
    """The version that answers a call, and when it ends if that is known."""

    version: str
    deprecation: Deprecation | None = None


class ModelRoutes:
    """Follows the records of the routes and chooses versions by them; while the store is away by those last known.

    A model without a record is routed by the aliases of its manifests.
    """

    def __init__(self, records: RouteRecords, engine: Engine) -> None:
        self._records = records
        self._engine = engine
        self._marks: dict[str, str] = {}
        self._known: dict[str, RouteRecord] = {}
        self._following: asyncio.Task[None] | None = None
        self._one_look = asyncio.Lock()

    async def start(self) -> None:
        """Reads the routes and follows them from now on.

        Raises ApiError(STORE_UNAVAILABLE): a replica that does not know the routes would answer by other versions.
        """
        await self.look()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Follows no longer."""
        if self._following:
            await ended([self._following])

    async def look(self) -> None:
        """Reads what has changed; raises ApiError(STORE_UNAVAILABLE)."""
        async with self._one_look:
            marks = await self._records.marks()
            changed = {
                model for model in marks.keys() | self._marks.keys() if marks.get(model) != self._marks.get(model)
            }
            if not changed:
                return
            records = await self._records.read(sorted(changed))
            for model in sorted(changed):
                self._note(model, records.get(model))
            self._marks = marks

    def of(self, model: str) -> RouteRecord:
        """Returns a model's routes as they are known here; a model that is not known has none."""
        return self._known.get(model) or self.unset(model)

    def unset(self, model: str) -> RouteRecord:
        """Returns the routes of a model that nobody has set: the aliases of its manifests."""
        return RouteRecord(0, Routes(self._in_manifests(model)))

    def aliases(self, model: str) -> Mapping[str, str]:
        """Returns the version that each alias of a model leads to, those that only a manifest knows included.

        One that has become a version's name leads nowhere.
        """
        led = {**self._in_manifests(model), **self.of(model).routes.aliases}
        return {alias: version for alias, version in led.items() if not self._engine.has_version(model, alias)}

    def known(self) -> Mapping[str, RouteRecord]:
        """Returns the records of the models that have one, as they are known here."""
        return dict(self._known)

    def shadow(self, model: str) -> Shadow | None:
        """Returns the version that sees a model's calls besides, and how many of them: the shadow, else the canary."""
        record = self._known.get(model)
        if record is None:
            return None
        canary = record.routes.canary
        if record.routes.shadow is None and canary and canary.shadow_percent:
            return Shadow(canary.version, canary.shadow_percent)
        return record.routes.shadow

    def deprecation(self, model: str, version: str) -> Deprecation | None:
        """Returns when a version ends, None where that is not known."""
        record = self._known.get(model)
        return record.routes.deprecations.get(version) if record else None

    def leads_to(self, version: ModelVersion) -> bool:
        """Returns whether the routes lead to a version, or would after a rollback: it must stay loaded."""
        record = self._known.get(version.name)
        if record is None:
            return bool(version.aliases)
        routes = record.routes
        led = {*routes.aliases.values(), *routes.previous.values(), *routes.pins.values()}
        led |= {chosen.version for chosen in (routes.canary, routes.shadow) if chosen}
        return version.version in led or any(alias not in routes.aliases for alias in version.aliases)

    def choose(self, model: str, asked: str, *, tenant: str, key: str | None = None) -> Choice:
        """Returns the version that answers a call which asks for a version, an alias or, if empty, for the default.

        A version that is named is what answers. An alias gives way to the tenant's pin, then to the canary. `key` is
        what the caller would have treated alike. Raises ApiError: MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND with the
        `successor` of one that is gone, MODEL_UNAVAILABLE.
        """
        asked = asked or DEFAULT_ALIAS
        record = self._known.get(model)
        routes = record.routes if record else Routes()
        if self._engine.has_version(model, asked):
            # Before any alias: a version may come whose name has been one.
            version = self._named(model, routes, asked)
        else:
            version = self._led_to(model, routes, asked, tenant, key)
            self._check_here(model, routes, version)
        return Choice(version, routes.deprecations.get(version))

    def _led_to(self, model: str, routes: Routes, asked: str, tenant: str, key: str | None) -> str:
        """Returns the version to which the routes, or without them the manifests, lead whoever asks for an alias."""
        known = routes.aliases.get(asked)
        if known is None and asked != DEFAULT_ALIAS:
            # One that only a manifest knows, or nobody; a pin holds for it too.
            known = self._named(model, routes, asked)
        if pinned := routes.pins.get(tenant):
            return pinned
        canary = routes.canary
        if (
            canary
            and canary.alias == asked
            and takes(canary, model, tenant, key)
            and self._ready(model, canary.version)
        ):
            return canary.version
        return known or self._named(model, routes, asked)

    def _named(self, model: str, routes: Routes, asked: str) -> str:
        try:
            return self._engine.resolve(model, asked).version
        except ApiError as error:
            if error.reason is Reason.MODEL_VERSION_NOT_FOUND and (successor := self._successor(model, routes, asked)):
                raise ApiError(error.reason, **error.details | {"successor": successor}) from None
            raise

    def _successor(self, model: str, routes: Routes, version: str) -> str | None:
        """Returns what to use instead of a version that is gone, None of one that never was as far as is known."""
        announced = routes.deprecations.get(version)
        # A version that is there, but is not found when it is asked, is retired.
        if announced is None and not self._engine.has_version(model, version):
            return None
        after = (announced.successor if announced else None, self.aliases(model).get(DEFAULT_ALIAS))
        lasting = (each for each in after if each and each != version and not self._engine.is_retired(model, each))
        return next(lasting, None)

    def _check_here(self, model: str, routes: Routes, version: str) -> None:
        try:
            self._named(model, routes, version)
        except ApiError as error:
            if error.reason is not Reason.MODEL_VERSION_NOT_FOUND or self._engine.is_retired(model, version):
                raise
            # The caller named no version: that this replica lacks the one it is led to is no fault of the call.
            raise ApiError(Reason.MODEL_UNAVAILABLE, why=f"version {version} is not on this replica") from None

    def _ready(self, model: str, version: str) -> bool:
        # Calls for the alias go on where a canary cannot answer; the next step of its rollout will find out.
        try:
            self._engine.resolve(model, version)
        except ApiError:
            return False
        return True

    def _in_manifests(self, model: str) -> dict[str, str]:
        versions = [version for version in self._engine.models() if version.name == model]
        return {alias: version.version for version in versions for alias in version.aliases}

    def _note(self, model: str, record: RouteRecord | None) -> None:
        if record is None:
            self._known.pop(model, None)
        else:
            self._known[model] = record
        revision = record.revision if record else 0
        ROUTES_REVISION.labels(model).set(revision)
        _log.info("routes", model=model, revision=revision)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_INTERVAL_S)
            try:
                await self.look()
            except ApiError:
                ROUTES_UNSEEN.inc()
            except Exception:
                # Such as a record of a later release: what is known holds.
                ROUTES_UNSEEN.inc()
                _log.exception("routes that cannot be read")


def takes(canary: Canary, model: str, tenant: str, key: str | None) -> bool:
    """Returns whether a call is the canary's: always the same for the same tenant or key.

    One that it takes at some percentage it takes at every higher one.
    """
    if tenant in canary.tenants:
        return True
    unit = f"{tenant}\n{key}" if canary.by == "key" and key else tenant
    # Another canary begins with other tenants, so that it is not always the same ones who try what is new.
    digest = hashlib.sha256("\n".join((model, canary.version, unit)).encode()).digest()
    point = 100 * int.from_bytes(digest[:_HASH_BYTES]) / _HASHES
    return point < canary.percent
