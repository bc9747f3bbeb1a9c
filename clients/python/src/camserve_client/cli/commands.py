"""How commands are read: `--json` wherever it stands, flags that take no value, and how wrong use is said."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from camserve_client.cli import shown
from camserve_client.cli.session import SOME_FAILED
from camserve_client.errors import CamserveError

# Typer's, whichever library it reads options with.
_UsageError: Any = typer.BadParameter.__base__


class Group(TyperGroup):
    """Commands whose help shows no type for a flag, which takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options of the group."""
        return _flags_untyped(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; without any, programs get an error and people the help."""
        if not args and ctx.find_root().params.get("json"):
            ctx.fail("Missing command.")
        return super().parse_args(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command of that name, if there is one."""
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            _flags_untyped(found.get_params(ctx))
        return found


class Program(Group):
    """The outermost group, to which `--json` belongs, before the command or behind it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments, `--json` first."""
        if _asks_for_json(args):
            end = _options_end(args)
            args = ["--json", *(one for one in args[:end] if one != "--json"), *args[end:]]
        return super().parse_args(ctx, args)

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> Any:
        """Reads what comes before the command."""
        with _wrong_use_said(as_json=_asks_for_json(args)):
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        with _wrong_use_said(as_json=ctx.params["json"]):
            return super().invoke(ctx)


@contextmanager
def _wrong_use_said(*, as_json: bool) -> Iterator[None]:
    """Says wrong use to programs, and leaves it to Typer for people."""
    try:
        yield
    except typer.Abort:
        if not as_json:
            raise
        _say("A question was not answered.")
        raise typer.Exit(SOME_FAILED) from None
    except _UsageError as error:
        if as_json:
            _say(error.format_message())
            raise typer.Exit(error.exit_code) from None
        # Files may be named like options, by who means to command the terminal.
        error.message = shown.printable(error.message, kept="\n\t")
        raise


def _say(message: str) -> None:
    fields = shown.error_fields(CamserveError(shown.USAGE_INVALID, message))
    sys.stderr.write(shown.line({"error": fields}) + "\n")


def _asks_for_json(args: Sequence[str]) -> bool:
    return "--json" in args[: _options_end(args)]


def _options_end(args: Sequence[str]) -> int:
    return args.index("--") if "--" in args else len(args)


def _flags_untyped(params: Iterable[Any]) -> list[Any]:
    for one in (found := list(params)):
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return found
