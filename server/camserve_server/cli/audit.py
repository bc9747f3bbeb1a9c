"""`camserve audit`: whether an audit log is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from camserve_server.base.audit_log import BrokenChainError, verify
from camserve_server.cli.command import fail

commands = typer.Typer(no_args_is_help=True, help="The log of who did what.")

Files = Annotated[
    list[Path], typer.Argument(help="Files of one replica, the oldest first.", exists=True, dir_okay=False)
]


@commands.callback()
def _commands() -> None:
    """Makes `verify` a command of a group that may grow."""


@commands.command("verify")
def verify_files(files: Files) -> None:
    """Looks whether every line follows the one before it, from each file to the next."""
    previous: str | None = None
    for path in files:
        with path.open("rb") as file:
            try:
                count, previous = verify(file, previous)
            except BrokenChainError as error:
                fail(f"{path}: {error}")
        typer.echo(f"{path}: {count} lines, whole")
    typer.echo(f"last digest: {previous}")
