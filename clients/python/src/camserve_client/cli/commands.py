"""How commands are read: `--json` wherever it stands, and flags that take no value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperGroup


class Group(TyperGroup):
    """Commands whose help shows no type for a flag, which takes no value."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options of the group."""
        return _flags_untyped(super().get_params(ctx))

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
        end = args.index("--") if "--" in args else len(args)
        if "--json" in args[:end]:
            args = ["--json", *(one for one in args[:end] if one != "--json"), *args[end:]]
        return super().parse_args(ctx, args)


def _flags_untyped(params: Iterable[Any]) -> list[Any]:
    for one in (found := list(params)):
        if getattr(one, "is_flag", False):
            one.metavar = ""
    return found
