"""The commands `camserve backup` and `camserve restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camserve_server.cli.command import DataDir, or_fail, settings_of

commands = typer.Typer()


@commands.command("backup")
def backup(
    file: Annotated[Path, typer.Argument(help="Archive to write: keys and data together, so keep it safe.")],
    data_dir: DataDir = None,
) -> None:
    """Write the state of this data directory to a file, while the service runs or while it does not."""
    from camserve_server.cli.backup import write

    settings = settings_of(data_dir=data_dir)
    for line in or_fail(lambda: write(settings, file)):
        typer.echo(line)


@commands.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(help="Archive that `camserve backup` wrote.")], data_dir: DataDir = None
) -> None:
    """Bring a backup back into a data directory that has no state yet; the service must not run."""
    from camserve_server.cli.backup import read

    settings = settings_of(data_dir=data_dir)
    for line in or_fail(lambda: read(settings, file)):
        typer.echo(line)
