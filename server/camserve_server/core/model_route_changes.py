"""Changes of routes: what an operator may do to them, each one a step that happens whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.engine import Engine
from camserve_server.engine.manifest import DEFAULT_ALIAS
from camserve_server.stores.model_routes import (
    Canary,
    Deprecation,
    Guard,
    RouteChange,
    RouteRecord,
    RouteRecords,
    Routes,
    Shadow,
)

V = TypeVar("V")

_log = structlog.get_logger("routes")

# Another operator may be faster once or twice; a change that names the revision it is meant for is not tried again.
_ATTEMPTS = 5
_SHADOW = "shadow"
# Golden inputs are a few pictures, or up to 64 of a large network that is busy.
_GOLDEN_S = 30.0


@dataclass(frozen=True, slots=True)
class Edit:
    """What is done to routes, in words and as a function.

    `proves` says that a version to which it leads callers must pass its golden inputs once more. What undoes a change
    does not wait for that: it goes by how they last came out.
    """

    what: str
    apply: Callable[[Routes], Routes]
    proves: bool = True


def promote(version: str, alias: str = DEFAULT_ALIAS) -> Edit:
    """Leads an alias to a version, and ends the alias's canary."""

    def apply(routes: Routes) -> Routes:
        return _led(_without_canary(routes, alias), alias, version)

    return Edit(f"promote {version} to {alias}", apply)


def remove_alias(alias: str) -> Edit:
    """Forgets an alias, and its canary."""

    def apply(routes: Routes) -> Routes:
        if alias == DEFAULT_ALIAS or alias not in routes.aliases:
            raise ApiError(Reason.PARAM_INVALID, "The model has no such alias that could be removed.", field="alias")
        kept = _without(routes.aliases, alias)
        return replace(_without_canary(routes, alias), aliases=kept, previous=_without(routes.previous, alias))

    return Edit(f"remove alias {alias}", apply)


def roll_back(alias: str = DEFAULT_ALIAS) -> Edit:
    """Ends the alias's canary, or where it has none leads it to the version that it led to before."""

    def apply(routes: Routes) -> Routes:
        ended = _without_canary(routes, alias)
        if ended != routes:
            return ended
        if alias not in routes.previous:
            raise ApiError(Reason.RESOURCE_VERSION_CONFLICT, "The alias was not changed: nothing to roll back.")
        return _led(routes, alias, routes.previous[alias])

    return Edit(f"roll back {alias}", apply, proves=False)


def canary(chosen: Canary | None) -> Edit:
    """Gives a version a part of the calls for an alias, in place of the canary that there is; None ends it."""

    def apply(routes: Routes) -> Routes:
        if chosen and chosen.alias not in routes.aliases:
            raise ApiError(Reason.PARAM_INVALID, "The model has no such alias.", field="alias")
        if chosen and not chosen.percent and not chosen.tenants:
            raise ApiError(Reason.PARAM_INVALID, "A canary has a percentage, or tenants.", field="percent")
        return replace(routes, canary=chosen)

    if chosen is None:
        return Edit("end canary", apply)
    tenants = f" and {len(chosen.tenants)} tenants" if chosen.tenants else ""
    return Edit(f"canary {chosen.version} at {chosen.percent:g} % of {chosen.alias}{tenants}", apply)


def pin(tenant: str, version: str) -> Edit:
    """Has a version answer a tenant whatever alias it asks for."""
    return Edit(f"pin {tenant} to {version}", lambda routes: replace(routes, pins={**routes.pins, tenant: version}))


def unpin(tenant: str) -> Edit:
    """Lets a tenant's calls go where everybody's go."""
    return Edit(f"unpin {tenant}", lambda routes: replace(routes, pins=_without(routes.pins, tenant)))


def shadow(chosen: Shadow | None) -> Edit:
    """Shows a version a share of the calls; None ends it."""
    what = f"shadow {chosen.version} at {chosen.percent:g} %" if chosen else "end shadow"
    return Edit(what, lambda routes: replace(routes, shadow=chosen))


def guard(chosen: Guard | None) -> Edit:
    """Sets the limits at which a canary of the model is rolled back; None takes them away."""
    return Edit("set guard" if chosen else "end guard", lambda routes: replace(routes, guard=chosen))


def deprecate(version: str, chosen: Deprecation | None) -> Edit:
    """Says when a version ends; None takes that back."""

    def apply(routes: Routes) -> Routes:
        kept = _without(routes.deprecations, version)
        return replace(routes, deprecations={**kept, version: chosen} if chosen else kept)

    return Edit(f"deprecate {version}" if chosen else f"end deprecation of {version}", apply)


class RouteChanges:
    """Makes changes. Every method raises ApiError(STORE_UNAVAILABLE), and MODEL_NOT_FOUND."""

    def __init__(self, records: RouteRecords, routes: ModelRoutes, engine: Engine, clock: Clock) -> None:
        self._records = records
        self._routes = routes
        self._engine = engine
        self._clock = clock

    async def models(self) -> dict[str, RouteRecord]:
        """Returns the routes of every model, by name."""
        names = sorted({version.name for version in self._engine.models()})
        records = await self._records.read(names)
        return {name: records.get(name) or self._routes.unset(name) for name in names}

    async def of(self, model: str) -> tuple[RouteRecord, list[RouteChange]]:
        """Returns a model's routes and their last changes, the newest first."""
        self._check_model(model)
        return await self._read(model), await self._records.changes(model)

    async def make(
        self, model: str, edit: Edit, *, by: str, why: str = "", expected: int | None = None
    ) -> tuple[RouteRecord, RouteRecord]:
        """Returns the routes before and after the change; where it changes nothing both are the same.

        Raises ApiError: RESOURCE_VERSION_CONFLICT when the routes are not at the expected revision or a version that
        they would lead to cannot answer, which the details tell; MODEL_VERSION_NOT_FOUND, PARAM_INVALID. Takes as long
        as the golden inputs of versions to which it leads callers, 30 s for each at most.
        """
        self._check_model(model)
        proven: set[str] = set()
        for _ in range(_ATTEMPTS):
            before = await self._read(model)
            if expected is not None and before.revision != expected:
                raise _conflict(expected, before.revision)
            now_ms = round(self._clock.now() * 1000)
            routes = _dated(before.routes, edit.apply(before.routes), now_ms)
            if routes == before.routes:
                return before, before
            self._check(model, before.routes, routes)
            for version in _led_anew(before.routes, routes) - proven:
                await self._check_golden(model, version, anew=edit.proves)
                proven.add(version)
            after = RouteRecord(before.revision + 1, routes)
            change = RouteChange(after.revision, now_ms, by, edit.what, why)
            if await self._records.write(model, after, change):
                _log.info("routes changed", model=model, revision=after.revision, by=by, what=edit.what, why=why)
                # It is made, whether it can be read again at once or not.
                with contextlib.suppress(ApiError):
                    await self._routes.look()
                return before, after
        raise _conflict(before.revision, (await self._read(model)).revision)

    async def _read(self, model: str) -> RouteRecord:
        # The first change writes down the aliases of the manifests, so that no new version takes one.
        return (await self._records.read([model])).get(model) or self._routes.unset(model)

    def _check_model(self, model: str) -> None:
        if all(version.name != model for version in self._engine.models()):
            raise ApiError(Reason.MODEL_NOT_FOUND)

    def _check(self, model: str, before: Routes, after: Routes) -> None:
        """Refuses what leads a caller to a version that cannot answer; what has led there before may stay."""
        versions = {version.version: version for version in self._engine.models() if version.name == model}
        if taken := (after.aliases.keys() - before.aliases.keys() - {DEFAULT_ALIAS}) & versions.keys():
            raise ApiError(Reason.PARAM_INVALID, f"{min(taken)} is a version of the model.", field="alias")
        for _, version in _places(after).items() - _places(before).items():
            found = versions.get(version)
            if found is None:
                raise ApiError(Reason.MODEL_VERSION_NOT_FOUND, version=version)
            try:
                self._engine.resolve(model, version)
            except ApiError as error:
                raise _unfit(version, error.details.get("why", f"it is {found.state}")) from None
        for version, chosen in after.deprecations.items():
            for named in (version, chosen.successor):
                if named and named not in versions and before.deprecations.get(version) != chosen:
                    raise ApiError(Reason.MODEL_VERSION_NOT_FOUND, version=named)

    async def _check_golden(self, model: str, version: str, *, anew: bool) -> None:
        """Refuses a version whose golden inputs fail, on this replica; `anew` says that they are run once more."""
        listed = next(each for each in self._engine.models() if each.key == (model, version))
        if anew and listed.golden != "none":
            try:
                async with asyncio.timeout(_GOLDEN_S):
                    listed = await self._engine.rerun_golden(model, version)
            except TimeoutError:
                raise _unfit(version, f"its golden inputs take longer than {_GOLDEN_S:g} s") from None
            except ApiError as error:
                # Such as that it keeps failing and is left alone.
                raise _unfit(version, error.details.get("why", error.message)) from None
        if listed.golden == "failed":
            raise _unfit(version, f"its golden inputs failed: {listed.golden_reason}")


def _led_anew(before: Routes, after: Routes) -> set[str]:
    """Returns the versions to which a change leads callers; a shadow answers none."""
    return {version for place, version in _places(after).items() - _places(before).items() if place != _SHADOW}


def _places(routes: Routes) -> dict[str, str]:
    """Returns every place from which the routes lead to a version."""
    places = {f"alias {alias}": version for alias, version in routes.aliases.items()}
    places |= {f"pin {tenant}": version for tenant, version in routes.pins.items()}
    if routes.canary:
        places["canary"] = routes.canary.version
    if routes.shadow:
        places[_SHADOW] = routes.shadow.version
    return places


def _dated(before: Routes, after: Routes, now_ms: int) -> Routes:
    """Returns the routes with when their canary and shadow began: now, unless that version was there before."""
    canary, shadow = after.canary, after.shadow
    if canary:
        old = before.canary
        kept = old is not None and (old.version, old.alias) == (canary.version, canary.alias)
        canary = replace(canary, since_ms=old.since_ms if old and kept else now_ms)
    if shadow:
        kept = before.shadow is not None and before.shadow.version == shadow.version
        shadow = replace(shadow, since_ms=before.shadow.since_ms if before.shadow and kept else now_ms)
    return replace(after, canary=canary, shadow=shadow)


def _led(routes: Routes, alias: str, version: str) -> Routes:
    before = routes.aliases.get(alias, version)
    previous = routes.previous if before == version else {**routes.previous, alias: before}
    return replace(routes, aliases={**routes.aliases, alias: version}, previous=previous)


def _without_canary(routes: Routes, alias: str) -> Routes:
    return replace(routes, canary=None) if routes.canary and routes.canary.alias == alias else routes


def _without(mapping: Mapping[str, V], key: str) -> dict[str, V]:
    return {name: value for name, value in mapping.items() if name != key}


def _unfit(version: str, why: str) -> ApiError:
    return ApiError(Reason.RESOURCE_VERSION_CONFLICT, "The version cannot take calls.", version=version, why=why)


def _conflict(expected: int, actual: int) -> ApiError:
    return ApiError(
        Reason.RESOURCE_VERSION_CONFLICT,
        "The routes were changed meanwhile.",
        expected_revision=expected,
        revision=actual,
    )
