"""Commands of `camserve models` that decide which version answers whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camserve_server.cli.command import DataDir, or_fail, settings_of

if TYPE_CHECKING:  # imported late: most commands need no protobuf
    from camserve.v1.model_routes_pb2 import ChangeModelRoutesRequest

commands = typer.Typer()

Model = Annotated[str, typer.Argument(help="Model, for example shapes.")]
Version = Annotated[str, typer.Argument(help="One of its versions, which must be ready.")]
Tenant = Annotated[str, typer.Argument(help="Tenant.")]
Alias = Annotated[str, typer.Option(help="Alias that callers ask for; stable is what those get who name none.")]
Revision = Annotated[
    int | None, typer.Option(help="Change only if the routes are at this revision; `routes` prints it.", min=0)
]
Why = Annotated[str, typer.Option(help="Reason, for those who read the changes later.")]


@commands.command("routes")
def routes(
    model: Annotated[str | None, typer.Argument(help="Model; with one, its last changes are printed too.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Print which version answers whom: aliases, canary, pins, shadow and dates."""
    from camserve_server.cli.model_routes import list_routes, show_routes

    settings = settings_of(data_dir=data_dir)
    lines = or_fail(show_routes, settings, model) if model else or_fail(list_routes, settings)
    typer.echo("\n".join(lines))


@commands.command("promote")
def promote(
    model: Model,
    version: Version,
    alias: Alias = "stable",
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Lead an alias to a version, on every replica within 2 s. Its canary ends.

    A version that is not ready, or whose golden inputs failed, is refused. The one before stays loaded: `rollback`
    brings it back.
    """
    change_routes(data_dir, model, revision, why, lambda request: _set(request.promote, version=version, alias=alias))


@commands.command("unalias")
def unalias(
    model: Model,
    alias: Annotated[str, typer.Argument(help="Alias, other than stable.")],
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Forget an alias: calls that ask for it are refused, unless a manifest claims it."""
    change_routes(data_dir, model, revision, why, lambda request: _set(request.remove_alias, alias=alias))


@commands.command("canary")
def canary(
    model: Model,
    version: Annotated[str | None, typer.Argument(help="One of its versions, which must be ready.")] = None,
    percent: Annotated[float, typer.Option(help="Part of the alias's calls that it gets.", min=0, max=100)] = 0.0,
    tenants: Annotated[str, typer.Option(help="Tenants whose calls it gets all, separated by commas.")] = "",
    by: Annotated[
        str,
        typer.Option(
            help="What gets one version throughout: `tenant`, or `key`, the call's Route-Key or Idempotency-Key."
        ),
    ] = "tenant",
    alias: Alias = "stable",
    shadow: Annotated[
        float, typer.Option(help="Part of the other calls that it sees besides, to be compared.", min=0, max=100)
    ] = 100.0,
    end: Annotated[bool, typer.Option("--end", help="End the canary instead.")] = False,
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Give a version a part of an alias's calls, or with --end take it back.

    Calls are chosen by a hash: the same tenant, or key, gets the same version, and a higher percentage moves nobody
    back. A model has one canary; a new one replaces it. `watch` shows how it does, and a `guard` rolls it back.
    """

    def fill(request: ChangeModelRoutesRequest) -> None:
        if end:
            request.end_canary.SetInParent()
            return
        if version is None:
            raise ValueError("name a version, or --end")
        chosen = [tenant.strip() for tenant in tenants.split(",") if tenant.strip()]
        _set(request.canary, version=version, percent=percent, by=by, alias=alias, shadow_percent=shadow)
        request.canary.tenants.extend(chosen)

    change_routes(data_dir, model, revision, why, fill)


@commands.command("pin")
def pin(
    model: Model,
    tenant: Tenant,
    version: Version,
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Have one version answer a tenant whatever alias it asks for, until it is unpinned.

    Promotions, canaries and rollbacks do not move it; a version that a call names still comes first.
    """
    change_routes(data_dir, model, revision, why, lambda request: _set(request.pin, tenant=tenant, version=version))


@commands.command("unpin")
def unpin(model: Model, tenant: Tenant, revision: Revision = None, why: Why = "", data_dir: DataDir = None) -> None:
    """Let a tenant's calls go where everybody's go."""
    change_routes(data_dir, model, revision, why, lambda request: _set(request.unpin, tenant=tenant))


@commands.command("shadow")
def shadow(
    model: Model,
    version: Annotated[str | None, typer.Argument(help="One of its versions, which must be ready.")] = None,
    percent: Annotated[float, typer.Option(help="Part of the calls that it sees.", min=0.001, max=100)] = 100.0,
    end: Annotated[bool, typer.Option("--end", help="End the shadow instead.")] = False,
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Show a version calls that another one has answered, or with --end no more. It answers nobody.

    Callers come first: it runs while no picture waits, a twentieth of the time at most, and sees fewer calls than asked
    for where there are many. Metrics tell its calls, errors and times beside those of the version that answers.
    """

    def fill(request: ChangeModelRoutesRequest) -> None:
        if end:
            request.end_shadow.SetInParent()
            return
        if version is None:
            raise ValueError("name a version, or --end")
        _set(request.shadow, version=version, percent=percent)

    change_routes(data_dir, model, revision, why, fill)


@commands.command("rollback")
def rollback(
    model: Model, alias: Alias = "stable", revision: Revision = None, why: Why = "", data_dir: DataDir = None
) -> None:
    """Take back an alias's canary, or where it has none its last promotion, on every replica within 2 s.

    Pinned tenants stay where they are. A promotion that was rolled back comes back by a second rollback.
    """
    change_routes(data_dir, model, revision, why, lambda request: _set(request.rollback, alias=alias))


@commands.command("deprecate")
def deprecate(
    model: Model,
    version: Annotated[str, typer.Argument(help="One of its versions.")],
    on: Annotated[str | None, typer.Option(help="Day from which it is deprecated (UTC); default: today.")] = None,
    sunset: Annotated[str | None, typer.Option(help="Day on which it ends (UTC).")] = None,
    link: Annotated[str | None, typer.Option(help="Page about it.")] = None,
    successor: Annotated[str | None, typer.Option(help="Version to use instead; default: the stable one.")] = None,
    end: Annotated[bool, typer.Option("--end", help="Take the dates back instead.")] = False,
    revision: Revision = None,
    why: Why = "",
    data_dir: DataDir = None,
) -> None:
    """Say when a version ends: its answers carry Deprecation, Sunset and Link, and listings the dates.

    It goes on answering, past its last day too. Days are like 2027-01-31, or 2027-01-31T12:00:00Z.
    """

    def fill(request: ChangeModelRoutesRequest) -> None:
        from camserve_server.cli.model_routes import timestamp, today

        if end:
            request.end_deprecation.version = version
            return
        dates = request.deprecate.deprecation
        request.deprecate.version = version
        dates.deprecated_at.CopyFrom(timestamp(on or today()))
        if sunset:
            dates.sunset_at.CopyFrom(timestamp(sunset))
        if link:
            dates.link = link
        if successor:
            dates.successor = successor

    change_routes(data_dir, model, revision, why, fill)


def change_routes(data_dir: Any, model: str, revision: int | None, why: str, fill: Callable[[Any], object]) -> None:
    """Makes the change that `fill` puts into a request, and prints the routes before and after."""
    from camserve.v1.model_routes_pb2 import ChangeModelRoutesRequest
    from camserve_server.cli.model_routes import change

    settings = settings_of(data_dir=data_dir)

    def run() -> list[str]:
        request = ChangeModelRoutesRequest(model=model, expected_revision=revision, why=why)
        fill(request)
        return change(settings, request)

    typer.echo("\n".join(or_fail(run)))


def _set(message: Any, **fields: object) -> None:
    for name, value in fields.items():
        setattr(message, name, value)
