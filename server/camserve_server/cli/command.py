"""What all commands have in common: their settings, and failures that become one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from camserve_server.base.config import ConfigError, Settings, load, unknown_variables
from camserve_server.base.errors import ApiError, OperatorError

DataDir = Annotated[Path | None, typer.Option(help="Keys, state, objects and logs.")]


def settings_of(**flags: Any) -> Settings:
    """Returns the effective settings; ends the program when a value is not allowed."""
    for name in unknown_variables():
        typer.echo(f"camserve: {name} is no setting of this release and has no effect", err=True)
    try:
        return load(**flags)
    except ConfigError as error:
        fail(str(error))


def or_fail(run: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a command; what it raises for people to read becomes one line and the exit status 1."""
    try:
        return run(*arguments)
    except ApiError as error:
        fail(error.message)
    except (OperatorError, OSError, ValueError) as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Ends the program with a line on standard error and the exit status 1."""
    typer.echo(f"camserve: {message}", err=True)
    sys.exit(1)
