"""Routes of models as messages and headers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from google.protobuf import timestamp_pb2

from camserve.v1 import model_routes_pb2 as pb
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core import model_route_changes as changes
from camserve_server.core.model_route_changes import Edit
from camserve_server.engine.manifest import DEFAULT_ALIAS
from camserve_server.rpc.answers import timestamp
from camserve_server.stores.model_routes import Canary, Deprecation, Guard, RouteChange, RouteRecord, Shadow

# The end of the year 9999, which is as far as dates of headers go.
_LAST_S = 253_402_300_799


def routes_message(model: str, record: RouteRecord) -> pb.ModelRoutes:
    """Returns a model's routes."""
    routes = record.routes
    return pb.ModelRoutes(
        model=model,
        revision=record.revision,
        aliases=routes.aliases,
        previous=routes.previous,
        canary=_canary_message(routes.canary),
        pins=routes.pins,
        shadow=pb.ModelShadow(version=routes.shadow.version, percent=routes.shadow.percent) if routes.shadow else None,
        deprecations={version: deprecation_message(each) for version, each in routes.deprecations.items()},
        guard=pb.ModelGuard(**asdict(routes.guard)) if routes.guard else None,
    )


def change_message(change: RouteChange) -> pb.ModelRouteChange:
    """Returns a change that was made."""
    return pb.ModelRouteChange(
        revision=change.revision, made_at=timestamp(change.at_ms), by=change.by, what=change.what, why=change.why
    )


def deprecation_message(deprecation: Deprecation) -> pb.ModelDeprecation:
    """Returns when a version ends."""
    return pb.ModelDeprecation(
        deprecated_at=timestamp(1000 * deprecation.since),
        sunset_at=timestamp(1000 * deprecation.sunset) if deprecation.sunset is not None else None,
        link=deprecation.link,
        successor=deprecation.successor,
    )


def edit_of(request: pb.ChangeModelRoutesRequest) -> Edit:
    """Returns the change that is asked for; raises ApiError(PARAM_INVALID)."""
    match request.WhichOneof("change"):
        case "promote":
            return changes.promote(request.promote.version, request.promote.alias or DEFAULT_ALIAS)
        case "remove_alias":
            return changes.remove_alias(request.remove_alias.alias)
        case "canary":
            return changes.canary(_canary(request.canary))
        case "end_canary":
            return changes.canary(None)
        case "pin":
            return changes.pin(request.pin.tenant, request.pin.version)
        case "unpin":
            return changes.unpin(request.unpin.tenant)
        case "shadow":
            return changes.shadow(Shadow(request.shadow.version, request.shadow.percent))
        case "end_shadow":
            return changes.shadow(None)
        case "guard":
            return changes.guard(Guard(**{field.name: value for field, value in request.guard.ListFields()}))
        case "end_guard":
            return changes.guard(None)
        case "deprecate":
            return changes.deprecate(request.deprecate.version, _deprecation(request.deprecate.deprecation))
        case "end_deprecation":
            return changes.deprecate(request.end_deprecation.version, None)
        case _:
            return changes.roll_back(request.rollback.alias or DEFAULT_ALIAS)


def _canary(message: pb.ModelCanary) -> Canary:
    by: Literal["tenant", "key"] = "key" if message.by == "key" else "tenant"
    return Canary(
        message.version,
        message.alias or DEFAULT_ALIAS,
        message.percent,
        tuple(message.tenants),
        by,
        message.shadow_percent,
    )


def _canary_message(canary: Canary | None) -> pb.ModelCanary | None:
    if canary is None:
        return None
    return pb.ModelCanary(
        version=canary.version,
        percent=canary.percent,
        tenants=canary.tenants,
        by=canary.by,
        alias=canary.alias,
        shadow_percent=canary.shadow_percent,
    )


def _deprecation(message: pb.ModelDeprecation) -> Deprecation:
    since = _unix_s(message.deprecated_at, "deprecated_at")
    sunset = _unix_s(message.sunset_at, "sunset_at") if message.HasField("sunset_at") else None
    if sunset is not None and sunset < since:
        raise ApiError(Reason.PARAM_INVALID, "A version ends after it is deprecated.", field="sunset_at")
    return Deprecation(since, sunset, message.link or None, message.successor or None)


def _unix_s(time: timestamp_pb2.Timestamp, field: str) -> int:
    if not 0 <= time.seconds <= _LAST_S:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field=field, minimum=0, maximum=_LAST_S)
    return time.seconds
