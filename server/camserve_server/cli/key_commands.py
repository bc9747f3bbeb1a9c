"""The commands `camserve keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camserve_server.cli.command import DataDir, fail, or_fail, settings_of

commands = typer.Typer(no_args_is_help=True, help="Keys of tokens, links, stored objects and state.")

RINGS = ("objects", "state", "tokens", "urls")


@commands.command("create")
def create(data_dir: DataDir = None) -> None:
    """Make the key rings that are not there yet, as the first start would, and print where they lie."""
    from camserve_server.base.clock import SystemClock
    from camserve_server.stores.keyring import KeyRing

    folder = settings_of(data_dir=data_dir).data_dir / "keys"
    for ring in RINGS:
        or_fail(lambda path: KeyRing(path, clock=SystemClock()), folder / f"{ring}.json")
    typer.echo(folder)


@commands.command("rotate")
def rotate(
    ring: Annotated[str, typer.Argument(help=f"{', '.join(RINGS)}.")],
    after: Annotated[
        str, typer.Option(help="Let the new key make nothing before that time: while copies of the file travel.")
    ] = "0",
    data_dir: DataDir = None,
) -> None:
    """Make a new key for what is new; what the old keys made stays readable. Running servers notice."""
    from camserve_server.base.clock import SystemClock
    from camserve_server.cli.tokens import seconds
    from camserve_server.stores.keyring import KeyRing

    if ring not in RINGS:
        fail(f"the rings are {', '.join(RINGS)}")
    after_s = or_fail(seconds, after)
    path = settings_of(data_dir=data_dir).data_dir / "keys" / f"{ring}.json"
    typer.echo(or_fail(lambda: KeyRing(path, clock=SystemClock()).rotate(after_s=after_s)))


@commands.command("certificate")
def certificate(
    folder: Annotated[Path, typer.Argument(help="Receives ca.pem, ca-key.pem, cert.pem and key.pem.")],
    name: Annotated[list[str], typer.Option(help="Name or address of the replicas, as the edge calls them.")],
    days: Annotated[int, typer.Option(help="How long it counts.", min=1, max=3650)] = 365,
) -> None:
    """Make a certificate for the gRPC and the internal port, signed by an authority of the folder's own.

    The authority is made once; called again the command renews the certificate.
    """
    from camserve_server.cli.certificate import issue

    or_fail(lambda: issue(folder, name, days=days))
    typer.echo(folder / "cert.pem")
