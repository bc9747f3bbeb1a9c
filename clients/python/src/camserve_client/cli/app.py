"""The command `cam`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import typer

from camserve_client.cli import infer, jobs, login, shown, uploads, webhooks
from camserve_client.cli.commands import Program
from camserve_client.cli.session import LOOKUP_S, SENDING_S, Session
from camserve_client.cli.tables import Column
from camserve_client.client import AsyncClient
from camserve_client.results import Health, Limits, Model
from camserve_client.version import VERSION

app = typer.Typer(
    name="cam",
    cls=Program,
    help="Asks a camserve service what is on images, and why it thinks so.",
    epilog="Exit codes: 0 done, 1 some images failed, 2 wrong use, 3 refused, 4 not signed in or not allowed, "
    "5 not reachable or busy, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("infer")(infer.infer)
app.command("upload")(uploads.upload)
app.add_typer(jobs.app, name="jobs")
app.add_typer(webhooks.app, name="webhooks")

_MODEL_COLUMNS = (
    "model",
    "version",
    "state",
    "aliases",
    Column("classes", spare=1),
    Column("layer", spare=2),
    "reason",
)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(VERSION)
        raise typer.Exit


@app.callback()
def common(
    ctx: typer.Context,
    address: Annotated[
        str | None,
        typer.Option(envvar="CAM_ADDRESS", help="grpc(s):// or http(s):// and a host; default: that of the login."),
    ] = None,
    token: Annotated[
        str | None, typer.Option(envvar="CAM_TOKEN", help="A JWT, instead of a login.", show_envvar=True)
    ] = None,
    ca_file: Annotated[
        Path | None, typer.Option(envvar="CAM_CA_FILE", help="Authorities to trust (PEM) instead of the public ones.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            envvar="CAM_TIMEOUT",
            min=0.1,
            help="Seconds that a call may take with all its attempts; "
            f"default: {SENDING_S:g}, or {LOOKUP_S:g} of commands that only ask.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print JSON, one line for each thing; may stand behind the command too.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """Reads the options that come before a command."""
    ctx.obj = Session(address, token, ca_file, json, timeout)


@app.command("login")
def sign_in(
    ctx: typer.Context,
    client_id: Annotated[
        str | None, typer.Option(help="As `camserve client create` printed it; asked for unless given.")
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Ask for this scope only; may be said again.")] = None,
) -> None:
    """Keep client credentials for the commands that follow, in a file that only you read.

    The secret is asked for, or read from the input where that is no terminal: arguments are seen by others.
    """
    # The secret is what is tried, and what advice is about.
    session: Session = dataclasses.replace(ctx.obj, token=None)
    if client_id is None:
        client_id = typer.prompt("Client id", err=True)
    secret = (
        typer.prompt("Client secret", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    )
    before, address = session.kept(), session.where
    known = before.ca_file if before and before.address == address else None
    ca_file = str(session.ca_file.resolve()) if session.ca_file else known
    kept = login.Login(address, client_id, secret, tuple(scope or ()), ca_file)

    async def tenant(client: AsyncClient) -> str:
        return (await client.limits()).tenant

    checked = session.run(tenant, login=kept)
    path = login.save(kept)
    session.show(
        {"tenant": checked, "file": str(path)}, lambda: f"Signed in at {address} as tenant {checked}; kept in {path}."
    )


@app.command()
def logout(ctx: typer.Context) -> None:
    """Forget the credentials."""
    session: Session = ctx.obj
    existed = session.guarded(login.remove)
    session.show({"removed": existed}, lambda: "Forgotten." if existed else "There was no login.")


@app.command()
def models(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="One model, with its labels.")] = None,
) -> None:
    """List the models, or tell all of one."""
    session: Session = ctx.obj

    async def asked(client: AsyncClient) -> tuple[Model, ...]:
        return await client.models() if name is None else (await client.model(name, full=True),)

    found = session.run(asked)
    if session.as_json:
        for model in found:
            session.line(model)
        return
    rows = (
        (model.model, one.version, one.state, ", ".join(one.aliases), one.classes, one.default_layer, one.reason)
        for model in found
        for one in model.versions
    )
    session.out.print(shown.table(_MODEL_COLUMNS, rows))
    if name is not None:
        labels = ((label.id, label.label) for label in found[0].versions[0].labels)
        session.out.print(shown.table((f"class of version {found[0].versions[0].version}", "label"), labels))


@app.command()
def limits(ctx: typer.Context) -> None:
    """Tell what your tenant may do, and how much of it is used."""
    session: Session = ctx.obj

    async def asked(client: AsyncClient) -> Limits:
        return await client.limits()

    found = session.run(asked)
    rate, day, calls = found.requests_per_second, found.images_per_day, found.concurrency
    rows = (
        ("tenant", found.tenant, ""),
        ("requests per second", rate.limit, f"{rate.remaining} of {rate.burst} at once are left"),
        ("images per day", day.limit, f"{day.used} used; again at {day.resets_at.astimezone():%H:%M %Z}"),
        ("calls at once", calls.limit, f"{calls.in_use} now"),
        ("bytes of an image", found.max_image_bytes, ""),
        ("images of one request or job", found.max_batch_size, ""),
        ("pixels of a side", found.max_side_px, ""),
        ("pixels", found.max_pixels, ""),
        ("hours that an upload is kept", found.retention_hours.default, ""),
    )
    session.show(found, lambda: shown.table(("limit", "value", "now"), rows))


@app.command()
def health(ctx: typer.Context) -> None:
    """Tell how the service is; needs no login."""
    session: Session = ctx.obj

    async def asked(client: AsyncClient) -> Health:
        return await client.health()

    found = session.run(asked)
    parts = ((part.name, "works" if part.healthy else "does not work") for part in found.components)
    rows = (("service", found.status), ("version", found.version), *parts)
    session.show(found, lambda: shown.table(("part", "state"), rows))


def run() -> None:
    """Runs the command line."""
    app(prog_name="cam")
