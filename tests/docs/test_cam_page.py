"""The page of `cam` names every command, option, choice, variable and exit code that there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer
from tests.docs.snippets import ROOT

from camserve_client.cli import session
from camserve_client.cli.app import app
from camserve_client.options import Colormap, Method
from camserve_client.results import DeliveryStatus, JobStatus
from camserve_client.webhook_calls import Event

PAGE = (ROOT / "docs" / "cam.md").read_text()
PROSE = " ".join(PAGE.split())


def commands(group: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yields every command with its whole name, groups included."""
    yield name, group
    for inner, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{name} {inner}")


COMMANDS = dict(commands(typer.main.get_command(app), "cam"))
PARAMETERS = [one for command in COMMANDS.values() for one in command.params]


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not hasattr(command, "commands")])
def test_every_command_is_named(name: str) -> None:
    assert re.search(rf"[`(\n]{name}\b", PAGE)


def test_every_command_that_is_named_is_there() -> None:
    words = re.findall(r"[`(\n|] ?cam ((?:--json )?[a-z].*?)(?=[`\n)])", PAGE)
    assert len(words) > 20
    for first, *more in (one.replace("--json ", "").split() for one in words):
        assert f"cam {first}" in COMMANDS
        if f"cam {first}" in ("cam jobs", "cam webhooks"):
            assert f"cam {first} {more[0]}" in COMMANDS


def test_its_options_are_those_there_are() -> None:
    # What belongs to other programs.
    ours = re.sub(r"camserve .*|sed -n|head -n|python3 -c", "", PAGE)
    named = set(re.findall(r"(?<![\w-])(?:--[a-z][a-z-]+|-[a-z])(?![\w-])", ours))
    known = {name for one in PARAMETERS for name in (*one.opts, *one.secondary_opts) if name.startswith("-")}
    assert named == known | {"--help", "--install-completion", "--show-completion"}


@pytest.mark.parametrize("choices", [Method, Colormap, JobStatus, DeliveryStatus, Event])
def test_every_choice_is_named(choices: Any) -> None:
    assert [one for one in get_args(choices) if f"`{one}`" not in PAGE] == []


def test_its_variables_are_those_there_are() -> None:
    known = {name for one in PARAMETERS if (name := getattr(one, "envvar", None))}
    assert set(re.findall(r"^\| `(CAM_\w+)`", PAGE, re.MULTILINE)) == known | {"CAM_LOGIN_FILE"}


def test_its_exit_codes_are_those_there_are() -> None:
    refusals = {session.SOME_FAILED, session.USAGE, session.REFUSED, session.NOT_ALLOWED, session.UNAVAILABLE}
    assert set(map(int, re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE))) == refusals | {0, session.INTERRUPTED}


def test_its_times_are_those_there_are() -> None:
    assert f"only ask go on for {session.LOOKUP_S:g} seconds" in PROSE
    assert f"for {session.SENDING_S:g} a call" in PROSE
