"""Looks whether programs would begin, where a page tells to run them for hours or on other machines."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import typer
from tests.docs.snippets import ROOT

from camserve_server.base.config import PREFIX, Settings, load
from camserve_server.base.errors import OperatorError
from camserve_server.cli.app import app

# Notes its arguments and its environment instead of doing anything.
PROGRAM = """\
#!/bin/sh
env -0 > {folder}/$$.env
printf '%s\\0' "$(basename "$0")" "$@" > {folder}/$$.args
"""


class NotBegunError(Exception):
    """A program has no such command, option or target, or does not take its settings."""


def noted(folder: Path) -> list[tuple[list[str], dict[str, str]]]:
    """Returns the arguments, the program's name first, and the settings of every call that was noted."""
    calls = []
    for path in folder.glob("*.args"):
        environment = dict(pair.split("=", 1) for pair in path.with_suffix(".env").read_text().split("\0") if pair)
        settings = {name: value for name, value in environment.items() if name.startswith(PREFIX)}
        calls.append((path.read_text().split("\0")[:-1], settings))
    return calls


def begin(arguments: list[str]) -> None:
    """Raises NotBegunError where a program would not begin, with the settings in the environment."""
    program, *rest = arguments
    {"camserve": _camserve, "make": _make, "python": _python}[program](rest)


def check_settings(settings: dict[str, str]) -> None:
    """Raises NotBegunError for a setting that there is not, and for values in the environment that are not allowed."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} | {f"{PREFIX}CONFIG"}
    if unknown := settings.keys() - known:
        raise NotBegunError(f"there is no setting {min(unknown)}")
    try:
        load()
    except OperatorError as error:
        raise NotBegunError(str(error)) from error


def _camserve(arguments: list[str]) -> None:
    command = typer.main.get_command(app)
    name = "camserve"
    while commands := getattr(command, "commands", None):
        name, *arguments = arguments
        if name not in commands:
            raise NotBegunError(f"there is no command {name}")
        command = commands[name]
    try:
        command.make_context(name, arguments)
    except Exception as error:  # of whatever library typer reads options with
        raise NotBegunError(f"{name}: {error}") from error


def _make(arguments: list[str]) -> None:
    told = (ROOT / "Makefile").read_text()
    for target in (argument for argument in arguments if "=" not in argument):
        if f"\n{target}:" not in told:
            raise NotBegunError(f"there is no target {target}")


def _python(arguments: list[str]) -> None:
    flag, module, *options = arguments
    known = set(re.findall(r"--[a-z-]+", _help(flag, module)))
    for option in options:
        if option.startswith("--") and option not in known:
            raise NotBegunError(f"{module} has no option {option}")


@cache
def _help(flag: str, module: str) -> str:
    command = [sys.executable, flag, module, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
