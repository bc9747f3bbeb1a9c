"""The command `camserve`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from camserve_server.base.config import Settings
from camserve_server.cli.audit import commands as audit_commands
from camserve_server.cli.backup_commands import commands as backup_commands
from camserve_server.cli.command import DataDir
from camserve_server.cli.command import fail as _fail
from camserve_server.cli.command import or_fail as _or_fail
from camserve_server.cli.command import settings_of as _settings
from camserve_server.cli.key_commands import commands as key_commands
from camserve_server.cli.model_commands import commands as model_commands
from camserve_server.cli.model_route_commands import commands as model_route_commands
from camserve_server.cli.model_watch_commands import commands as model_watch_commands

app = typer.Typer(
    name="camserve",
    help="Serves image classifiers that explain themselves: probabilities and Grad-CAM heatmaps.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
client_app = typer.Typer(no_args_is_help=True, help="Clients that fetch tokens with an id and a secret.")
models_app = typer.Typer(no_args_is_help=True, help="Models that are served.")
webhooks_app = typer.Typer(no_args_is_help=True, help="Events about jobs, sent to your own servers.")
tenants_app = typer.Typer(no_args_is_help=True, help="What tenants may do: rates, quotas, sizes.")
plans_app = typer.Typer(no_args_is_help=True, help="Plans: limits that tenants share.")
app.add_typer(client_app, name="client")
app.add_typer(tenants_app, name="tenants")
app.add_typer(plans_app, name="plans")
models_app.add_typer(model_commands)
models_app.add_typer(model_route_commands)
models_app.add_typer(model_watch_commands)
app.add_typer(models_app, name="models")
app.add_typer(webhooks_app, name="webhooks")
app.add_typer(key_commands, name="keys")
app.add_typer(audit_commands, name="audit")
app.add_typer(backup_commands)

Tenant = Annotated[str, typer.Option(help="Tenant, 1 to 100 letters, digits or . _ : @ -")]
Rps = Annotated[int | None, typer.Option(help="Requests per second.", min=1)]
Burst = Annotated[int | None, typer.Option(help="Requests at once; without one a second's worth.", min=1)]
ImagesPerDay = Annotated[int | None, typer.Option(help="Images of one day (UTC).", min=0)]
Concurrency = Annotated[int | None, typer.Option(help="Calls that may run at once.", min=0)]
MaxBatch = Annotated[int | None, typer.Option(help="Inputs of one batch or job.", min=1, max=256)]
MaxImageBytes = Annotated[int | None, typer.Option(help="Bytes of one image.", min=1)]
ScopeList = Annotated[
    list[str] | None,
    typer.Option(help="Scopes, separated by spaces or each with its own --scope; default: all but admin."),
]


@app.command()
def up(
    data_dir: DataDir = None,
    ready_file: Annotated[Path | None, typer.Option(help="Receives a JSON line once everything is healthy.")] = None,
    edge_port: Annotated[int | None, typer.Option(help="Port of REST and gRPC through Envoy.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Port of gRPC, direct.")] = None,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas behind the edge; from one to the next each port is 10 higher.")
    ] = None,
    with_parent: Annotated[bool, typer.Option(help="Stop when the process that started this one ends.")] = False,
) -> None:
    """Run the whole stack here: Valkey, the server and Envoy. Ctrl-C stops it."""
    from camserve_server.cli.up import up as run

    settings = _settings(
        data_dir=data_dir,
        ready_file=ready_file,
        edge_port=edge_port,
        grpc_port=grpc_port,
        replica_count=replicas,
    )
    _or_fail(lambda: run(settings, with_parent=with_parent))


@app.command()
def serve(
    data_dir: DataDir = None,
    roles: Annotated[
        str | None, typer.Option(help="What it does, by commas: api, worker, courier, janitor; default: all.")
    ] = None,
) -> None:
    """Run one replica (gRPC only) against the Redis of CAMSERVE_REDIS_URL. SIGTERM drains it."""
    from camserve_server.cli.serve import serve as run

    # Who starts a server by itself names its ports.
    settings = _settings(data_dir=data_dir, roles=roles, replica_count=1)
    _or_fail(run, settings, _redis_url(settings))


@app.command()
def edge(
    replica: Annotated[
        list[str] | None, typer.Option(help="gRPC port of a replica, as host:port; once for each.")
    ] = None,
    limiter: Annotated[
        list[str] | None, typer.Option(help="Internal port of a replica, as host:port, asked about rates.")
    ] = None,
    data_dir: DataDir = None,
    ready_file: Annotated[Path | None, typer.Option(help="Receives a JSON line once a replica is healthy.")] = None,
    edge_port: Annotated[int | None, typer.Option(help="Port of REST and gRPC.")] = None,
) -> None:
    """Run Envoy alone, in front of replicas that run elsewhere. SIGTERM drains it."""
    from camserve_server.cli.edge import edge as run

    settings = _settings(
        replicas=replica or None,
        limiters=limiter or None,
        data_dir=data_dir,
        ready_file=ready_file,
        edge_port=edge_port,
    )
    _or_fail(run, settings)


@app.command()
def token(
    tenant: Tenant,
    scope: ScopeList = None,
    ttl: Annotated[str, typer.Option(help="Lifetime: 90s, 15m, 1h, up to 24h.")] = "1h",
    sub: Annotated[str, typer.Option(help="Subject: who or what uses the token.")] = "developer",
    data_dir: DataDir = None,
) -> None:
    """Print a token of the built-in issuer, and nothing else."""
    from camserve_server.cli.tokens import has_keys, issuer, scopes_of, seconds

    settings = _settings(data_dir=data_dir)
    scopes = _or_fail(scopes_of, scope)
    if not has_keys(settings):
        typer.echo(
            f"{settings.data_dir} had no keys yet: a service whose data lies elsewhere does not know this token.",
            err=True,
        )
    typer.echo(_or_fail(lambda: issuer(settings).issue(tenant=tenant, subject=sub, scopes=scopes, ttl_s=seconds(ttl))))


@client_app.command("create")
def client_create(tenant: Tenant, scope: ScopeList = None, data_dir: DataDir = None) -> None:
    """Make a client for /oauth2/token and print its id and its secret, which is shown only now."""
    from camserve_server.cli.tokens import scopes_of

    scopes = _or_fail(scopes_of, scope)
    client_id, secret = _with_clients(data_dir, lambda clients: clients.create(tenant, scopes))
    typer.echo(f"client_id={client_id}\nclient_secret={secret}")


@client_app.command("list")
def client_list(tenant: Tenant, data_dir: DataDir = None) -> None:
    """List a tenant's clients and their scopes."""
    for client in _with_clients(data_dir, lambda clients: clients.list(tenant)):
        typer.echo(f"{client.client_id}  {' '.join(client.scopes)}")


@client_app.command("rotate")
def client_rotate(
    client_id: Annotated[str, typer.Argument(help="Client id.")],
    tenant: Tenant,
    overlap: Annotated[str, typer.Option(help="How long the old secret still works: 0, 90s, 15m, 1h, 7d.")] = "24h",
    data_dir: DataDir = None,
) -> None:
    """Give a client a new secret and print it; it is shown only now."""
    from camserve_server.cli.tokens import seconds

    overlap_ms = 1000 * _or_fail(seconds, overlap)
    secret = _with_clients(data_dir, lambda clients: clients.rotate(tenant, client_id, overlap_ms=overlap_ms))
    if secret is None:
        _fail("the tenant has no such client")
    typer.echo(f"client_secret={secret}")


@client_app.command("revoke")
def client_revoke(
    client_id: Annotated[str, typer.Argument(help="Client id.")], tenant: Tenant, data_dir: DataDir = None
) -> None:
    """End a client: it fetches no more tokens; those it has stay valid until they expire."""
    if not _with_clients(data_dir, lambda clients: clients.revoke(tenant, client_id)):
        _fail("the tenant has no such client")
    typer.echo("revoked")


@app.command("top")
def top(
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics", help="Metrics of a replica, as http://127.0.0.1:9464/metrics; several times for several."
        ),
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between looks.", min=0.2, max=60)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one page and end.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Watch replicas, versions, queues and tenants."""
    from camserve_server.cli.top import Top, show

    settings = _settings(data_dir=data_dir)
    here = [replica["metrics_url"] for replica in _running_stack(settings).get("replicas", [])]
    replicas = metrics or here or [f"http://127.0.0.1:{settings.metrics_port}/metrics"]
    with contextlib.suppress(KeyboardInterrupt):
        show(Top(replicas, _known_redis_url(settings)), interval_s=interval, once=once)


@tenants_app.command("set")
def tenants_set(
    tenant: Annotated[str, typer.Argument(help="Tenant.")],
    plan: Annotated[str | None, typer.Option(help="Plan; empty takes it away.")] = None,
    rps: Rps = None,
    burst: Burst = None,
    images_per_day: ImagesPerDay = None,
    concurrency: Concurrency = None,
    max_batch: MaxBatch = None,
    max_image_bytes: MaxImageBytes = None,
    data_dir: DataDir = None,
) -> None:
    """Set limits of a tenant; those not named stay. Every replica keeps to them within 2 s."""
    from camserve_server.cli.tenants import set_tenant

    limits = _limits(rps, burst, images_per_day, concurrency, max_batch, max_image_bytes)
    settings = _settings(data_dir=data_dir)
    typer.echo(_or_fail(lambda: set_tenant(settings, tenant, plan, **limits)))


@tenants_app.command("show")
def tenants_show(tenant: Annotated[str, typer.Argument(help="Tenant.")], data_dir: DataDir = None) -> None:
    """Print what a tenant may do; a star marks limits of its own."""
    from camserve_server.cli.tenants import show_tenant

    typer.echo(_or_fail(show_tenant, _settings(data_dir=data_dir), tenant))


@tenants_app.command("list")
def tenants_list(data_dir: DataDir = None) -> None:
    """List the tenants that have a plan or limits of their own."""
    from camserve_server.cli.tenants import list_tenants

    for line in _or_fail(list_tenants, _settings(data_dir=data_dir)):
        typer.echo(line)


@tenants_app.command("reset")
def tenants_reset(tenant: Annotated[str, typer.Argument(help="Tenant.")], data_dir: DataDir = None) -> None:
    """Give a tenant the limits of everybody again."""
    from camserve_server.cli.tenants import reset_tenant

    typer.echo(_or_fail(reset_tenant, _settings(data_dir=data_dir), tenant))


@plans_app.command("set")
def plans_set(
    plan: Annotated[str, typer.Argument(help="Plan.")],
    rps: Rps = None,
    burst: Burst = None,
    images_per_day: ImagesPerDay = None,
    concurrency: Concurrency = None,
    max_batch: MaxBatch = None,
    max_image_bytes: MaxImageBytes = None,
    data_dir: DataDir = None,
) -> None:
    """Make a plan or change its limits; those not named stay."""
    from camserve_server.cli.tenants import set_plan

    limits = _limits(rps, burst, images_per_day, concurrency, max_batch, max_image_bytes)
    settings = _settings(data_dir=data_dir)
    typer.echo(_or_fail(lambda: set_plan(settings, plan, **limits)))


@plans_app.command("list")
def plans_list(data_dir: DataDir = None) -> None:
    """List the plans."""
    from camserve_server.cli.tenants import list_plans

    for line in _or_fail(list_plans, _settings(data_dir=data_dir)):
        typer.echo(line)


@plans_app.command("delete")
def plans_delete(plan: Annotated[str, typer.Argument(help="Plan.")], data_dir: DataDir = None) -> None:
    """Remove a plan; its tenants have the limits of everybody."""
    from camserve_server.cli.tenants import delete_plan

    _or_fail(delete_plan, _settings(data_dir=data_dir), plan)
    typer.echo("deleted")


@webhooks_app.command("listen")
def webhooks_listen(
    port: Annotated[int, typer.Option(help="Port on this machine.")] = 9000,
    tenant: Annotated[
        str | None, typer.Option(help="Register a webhook of this tenant with the server here, as long as this runs.")
    ] = None,
    secret: Annotated[str | None, typer.Option(help="Secret that verifies what comes: whsec_...")] = None,
    answer: Annotated[int, typer.Option(help="Status that events are answered with.", min=100, max=599)] = 200,
    data_dir: DataDir = None,
) -> None:
    """Receive events on this machine, verify them and print a line for each. Ctrl-C stops it.

    What none of the secrets known here signed, as an event of another webhook, is NOT AUTHENTIC.
    """
    from camserve_server.cli.webhooks import listen

    settings = _settings(data_dir=data_dir)
    _or_fail(lambda: listen(settings, port=port, tenant=tenant, secret=secret, answer=answer, say=typer.echo))


@app.command()
def config(data_dir: DataDir = None) -> None:
    """Print every setting in force, with what it means; secrets are masked."""
    settings = _settings(data_dir=data_dir)
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        shown = ",".join(value) if isinstance(value, tuple) else ("" if value is None else str(value))
        typer.echo(f"CAMSERVE_{name.upper()}={shown}  # {field.description}")


@app.command()
def version() -> None:
    """Print the release."""
    from importlib.metadata import version as release

    typer.echo(release("camserve"))


def main() -> None:
    """Runs the command line."""
    app()


def _limits(
    rps: int | None,
    burst: int | None,
    images_per_day: int | None,
    concurrency: int | None,
    max_batch: int | None,
    max_image_bytes: int | None,
) -> dict[str, int | None]:
    return {
        "requests_per_second": rps,
        "burst": burst,
        "images_per_day": images_per_day,
        "concurrency": concurrency,
        "max_batch_size": max_batch,
        "max_image_bytes": max_image_bytes,
    }


def _redis_url(settings: Settings) -> str:
    url = _known_redis_url(settings)
    if url is None:
        _fail("no running stack: start `camserve up`, or set CAMSERVE_REDIS_URL")
    return url


def _known_redis_url(settings: Settings) -> str | None:
    if settings.redis_url:
        return settings.redis_url.get_secret_value()
    return _running_stack(settings).get("redis_url")


def _running_stack(settings: Settings) -> dict[str, Any]:
    """Returns what the stack of the data directory says of itself; nothing where none was started."""
    from camserve_server.cli.stack import state_file

    try:
        state: dict[str, Any] = orjson.loads(state_file(settings).read_bytes())
    except (OSError, ValueError):
        return {}
    return state


def _with_clients(data_dir: Path | None, use: Callable[[Any], Any]) -> Any:
    from camserve_server.base.clock import SystemClock
    from camserve_server.stores.oauth_clients import OAuthClients
    from camserve_server.stores.redis import connect

    url = _redis_url(_settings(data_dir=data_dir))

    async def run() -> Any:
        redis = connect(url)
        try:
            return await use(OAuthClients(redis, clock=SystemClock()))
        finally:
            await redis.aclose()

    return _or_fail(lambda: asyncio.run(run()))


if __name__ == "__main__":
    main()
