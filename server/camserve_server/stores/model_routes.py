"""Which version of a model answers whom: one record for each model, and its last changes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

import orjson
from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import Script

_MOST_CHANGES = 50
_CHANGE = Script("model_routes_change")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that gets a part of the calls for an alias: `percent` of them, and all of some tenants.

    `by` says what is hashed: the tenant, or the key that a call brings. Of the calls that others answer it sees
    `shadow_percent` as a shadow does. `since_ms` is when it began, in unix milliseconds.
    """

    version: str
    alias: str
    percent: float = 0.0
    tenants: tuple[str, ...] = ()
    by: Literal["tenant", "key"] = "tenant"
    shadow_percent: float = 0.0
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that sees `percent` of the calls after they are answered, and answers nobody.

    `since_ms` is when it began, in unix milliseconds.
    """

    version: str
    percent: float
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Guard:
    """What ends a canary, judged by the last `window_s` seconds once there are `min_calls` of what a limit is about.

    `max_error_rate` is how much the canary's may lie above the rate of the version that it is compared with;
    `max_latency_ratio` is of the 95th percentiles of their forward passes. The others are about pictures that both have
    seen: the share with the same top class, the distance between the distributions of top classes, the mean overlap of
    the heatmaps' top areas and the mean distance of their centres in diagonals of the picture, all 0 to 1.
    """

    window_s: int = 300
    min_calls: int = 50
    max_error_rate: float = 0.02
    max_latency_ratio: float = 2.0
    min_agreement: float = 0.8
    max_class_shift: float = 0.1
    min_heatmap_iou: float = 0.3
    max_centre_shift: float = 0.2


@dataclass(frozen=True, slots=True)
class Deprecation:
    """When a version is or was deprecated and when it ends, in unix seconds; where to read why, and what follows it."""

    since: int
    sunset: int | None = None
    link: str | None = None
    successor: str | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes of a model: `aliases` are versions by alias, `previous` those before the last change of each, `pins`
    versions by tenant, `deprecations` dates by version.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    previous: Mapping[str, str] = field(default_factory=dict)
    canary: Canary | None = None
    pins: Mapping[str, str] = field(default_factory=dict)
    shadow: Shadow | None = None
    deprecations: Mapping[str, Deprecation] = field(default_factory=dict)
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """Routes and how often they were changed; 0 is the revision of what nobody has set."""

    revision: int
    routes: Routes


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A change: the revision that it made, when (unix milliseconds), who made it, what it was and why."""

    revision: int
    at_ms: int
    by: str
    what: str
    why: str


class RouteRecords:
    """The routes of all models. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer."""

    def __init__(self, redis: Redis, disk: Disk) -> None:
        self._redis = redis
        self._disk = disk

    async def marks(self) -> dict[str, str]:
        """Returns what tells one state of a model's routes from another, of each model that has any."""
        with unavailable_on_error():
            marks = await self._redis.hgetall(keys.model_route_marks())
        return {text(model): text(mark) for model, mark in marks.items()}

    async def read(self, models: Iterable[str]) -> dict[str, RouteRecord]:
        """Returns the records of those models that have one."""
        names = list(models)
        if not names:
            return {}
        with unavailable_on_error():
            found: Any = await self._redis.hmget(keys.model_routes(), names)
        return {name: _record(stored) for name, stored in zip(names, found, strict=True) if stored}

    async def write(self, model: str, record: RouteRecord, change: RouteChange) -> bool:
        """Replaces a model's record by the one of the next revision; False when another change came first.

        Once this returns True, it is on the disk.
        """
        pipe = self._redis.pipeline(transaction=False)
        pipe.eval(
            _CHANGE.source,
            3,
            keys.model_route_marks(),
            keys.model_routes(),
            keys.model_route_changes(model),
            model,
            record.revision - 1,
            secrets.token_hex(8),
            orjson.dumps(record),
            orjson.dumps(change),
            _MOST_CHANGES,
        )
        return bool((await self._disk.execute(pipe))[0])

    async def changes(self, model: str) -> list[RouteChange]:
        """Returns the last changes, the newest first."""
        with unavailable_on_error():
            entries: Any = await self._redis.lrange(keys.model_route_changes(model), 0, -1)
        return [_read(RouteChange, orjson.loads(entry)) for entry in entries]


def _record(stored: bytes) -> RouteRecord:
    document = orjson.loads(stored)
    routes = document["routes"]
    canary = routes["canary"]
    return RouteRecord(
        document["revision"],
        Routes(
            aliases=routes["aliases"],
            previous=routes["previous"],
            canary=_read(Canary, canary | {"tenants": tuple(canary["tenants"])}) if canary else None,
            pins=routes["pins"],
            shadow=_read(Shadow, routes["shadow"]) if routes["shadow"] else None,
            deprecations={version: _read(Deprecation, each) for version, each in routes["deprecations"].items()},
            # Records of releases before it have none.
            guard=_read(Guard, routes["guard"]) if routes.get("guard") else None,
        ),
    )


def _read(kind: Callable[..., T], document: dict[str, Any]) -> T:
    """Returns what a document describes; what a later release has added to it is left out."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in document.items() if name in known})
