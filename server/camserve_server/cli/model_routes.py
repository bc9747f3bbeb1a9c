"""Routes of models from the command line, through the running server's internal listener."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime

from google.protobuf import timestamp_pb2

from camserve.v1 import model_routes_pb2 as pb
from camserve_server.base.config import Settings
from camserve_server.base.errors import OperatorError
from camserve_server.cli.admin import ask

# The server runs the golden inputs of a version to which the change leads callers, for up to 30 s.
_CHANGE_TIMEOUT_S = 60


def list_routes(settings: Settings) -> list[str]:
    """Returns the lines of every model's routes; raises ValueError when no server answers."""
    answer = ask(settings, lambda admin, options: admin.ListModelRoutes(pb.ListModelRoutesRequest(), **options))
    return [line for routes in answer.routes for line in (_head(routes), *_indented(routes))]


def show_routes(settings: Settings, model: str) -> list[str]:
    """Returns the lines of a model's routes and of their last changes; raises ValueError as `change` does."""
    request = pb.GetModelRoutesRequest(model=model)
    answer = ask(settings, lambda admin, options: admin.GetModelRoutes(request, **options))
    return [_head(answer.routes), *_indented(answer.routes), *_history(answer.changes)]


def check_no_alias(settings: Settings, model: str, name: str) -> None:
    """Raises ValueError where a new version would have the name of an alias, as far as the server here tells."""
    request = pb.GetModelRoutesRequest(model=model)
    try:
        routes = ask(settings, lambda admin, options: admin.GetModelRoutes(request, **options)).routes
    except (ValueError, OperatorError, OSError):
        # No server need run for a version to be added, and this one may not know the model.
        return
    if name in routes.aliases:
        raise ValueError(f"{name} is an alias of {model} that leads to {routes.aliases[name]}, and no version's name")


def ways_to(settings: Settings, model: str, version: str) -> list[str]:
    """Returns what leads callers of the server here to a version, or would after a rollback.

    Raises ValueError as `change` does.
    """
    request = pb.GetModelRoutesRequest(model=model)
    routes = ask(settings, lambda admin, options: admin.GetModelRoutes(request, **options)).routes
    ways = [alias for alias, led in _sorted(routes.aliases) if led == version]
    ways += [f"the pin of {tenant}" for tenant, pinned in _sorted(routes.pins) if pinned == version]
    ways += [f"the {kind}" for kind in ("canary", "shadow") if getattr(routes, kind).version == version]
    return ways + [f"a rollback of {alias}" for alias, before in _sorted(routes.previous) if before == version]


def change(settings: Settings, request: pb.ChangeModelRoutesRequest) -> list[str]:
    """Makes a change and returns the lines of the routes before and after it; raises ValueError when it is refused."""
    answer = ask(
        settings, lambda admin, options: admin.ChangeModelRoutes(request, **options | {"timeout": _CHANGE_TIMEOUT_S})
    )
    if answer.before.revision == answer.after.revision:
        return [f"{_head(answer.after)}, as before", *_indented(answer.after)]
    return [
        f"{request.model}  revision {answer.before.revision} -> {answer.after.revision}",
        "before",
        *_indented(answer.before),
        "after",
        *_indented(answer.after),
    ]


def timestamp(day: str) -> timestamp_pb2.Timestamp:
    """Returns the time of `2027-01-31` or `2027-01-31T12:00:00Z`; raises ValueError for anything else."""
    try:
        time = datetime.fromisoformat(day)
    except ValueError:
        raise ValueError(f"{day!r} is no date like 2027-01-31 or 2027-01-31T12:00:00Z") from None
    return timestamp_pb2.Timestamp(seconds=int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()))


def today() -> str:
    """Returns this day (UTC) as `timestamp` takes it."""
    return datetime.now(UTC).date().isoformat()


def _head(routes: pb.ModelRoutes) -> str:
    return f"{routes.model}  revision {routes.revision}"


def _indented(routes: pb.ModelRoutes) -> list[str]:
    return [f"  {line}" for line in _lines(routes)] or ["  no routes"]


def _lines(routes: pb.ModelRoutes) -> list[str]:
    lines = [f"{alias} -> {version}{_before(routes, alias)}" for alias, version in _sorted(routes.aliases)]
    if routes.HasField("canary"):
        lines.append(canary_line(routes.canary))
    lines += [f"pin {tenant} -> {version}" for tenant, version in _sorted(routes.pins)]
    if routes.HasField("guard"):
        lines.append(guard_line(routes.guard))
    if routes.HasField("shadow"):
        lines.append(f"shadow {routes.shadow.version}: {routes.shadow.percent:g} %")
    for version in sorted(routes.deprecations):
        lines.append(f"deprecated {version}: {_deprecation(routes.deprecations[version])}")
    return lines


def _before(routes: pb.ModelRoutes, alias: str) -> str:
    return f", before {routes.previous[alias]}" if alias in routes.previous else ""


def canary_line(canary: pb.ModelCanary) -> str:
    """Returns which calls a canary gets, and which it only sees."""
    tenants = f", all calls of {', '.join(canary.tenants)}" if canary.tenants else ""
    seen = f", sees {canary.shadow_percent:g} % of the rest" if canary.shadow_percent else ""
    return f"canary {canary.version}: {canary.percent:g} % of {canary.alias} by {canary.by}{tenants}{seen}"


def guard_line(guard: pb.ModelGuard) -> str:
    """Returns the limits at which a canary is rolled back."""
    limits = [(field.name, value) for field, value in guard.ListFields() if field.name != "window_s"]
    told = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in limits)
    return f"guard: last {guard.window_s} s, {told}"


def _deprecation(deprecation: pb.ModelDeprecation) -> str:
    parts = [f"since {_day(deprecation.deprecated_at)}"]
    if deprecation.HasField("sunset_at"):
        parts.append(f"until {_day(deprecation.sunset_at)}")
    if deprecation.HasField("successor"):
        parts.append(f"then {deprecation.successor}")
    if deprecation.HasField("link"):
        parts.append(f"see {deprecation.link}")
    return ", ".join(parts)


def _history(changes: list[pb.ModelRouteChange]) -> list[str]:
    return (["changes"] if changes else []) + [f"  {change_line(each)}" for each in changes]


def change_line(made: pb.ModelRouteChange) -> str:
    """Returns what was changed, when, by whom and why."""
    why = f": {made.why}" if made.why else ""
    at = made.made_at.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{made.revision}  {at}  {made.by}  {made.what}{why}"


def _day(time: timestamp_pb2.Timestamp) -> str:
    moment = time.ToDatetime(UTC)
    return str(date(moment.year, moment.month, moment.day)) if time.seconds % 86_400 == 0 else moment.isoformat()


def _sorted(mapping: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(mapping.items())
