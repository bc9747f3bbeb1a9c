"""Every command of docs/grpcurl.md, and those of README.md and docs/quick-start.md, run with the real programs."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Stack, camserve_program
from tests.images import GOLDEN

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grpcurl.md").read_text()
README = (ROOT / "README.md").read_text()
QUICK_START = (ROOT / "docs" / "quick-start.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
SCRIPTS = [text for kind, text in BLOCKS if kind == "sh"]
ROWS = re.findall(r"^\| [^|]+ \| `(.*)` \|$", PAGE, re.MULTILINE)
# Where a program is not installed the page tells what runs it.
INSTEAD = dict(re.findall(r"`(\w+)`\s+is\s+`(npx [^`]+)`", PAGE))

pytestmark = pytest.mark.timeout(300)

Run = Callable[[str], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(stack: Stack, tmp_path: Path) -> Run:
    """Runs a script after what the page sets first, with the addresses of the stack."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "grpcurl").symlink_to(ROOT / "toolchains" / "bin" / "grpcurl")
    for name, command in INSTEAD.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    environment = {**stack.environment, "WORK": str(tmp_path)}
    environment["PATH"] = f"{programs}:{environment['PATH']}"
    places = {
        "127.0.0.1:50051": stack.grpc_target,
        "127.0.0.1:8080": stack.edge_url.removeprefix("http://"),
        ".venv/bin/camserve": camserve_program(),
    }

    def script(text: str) -> subprocess.CompletedProcess[str]:
        whole = f"set -euo pipefail\n{SCRIPTS[0]}\n{text}"
        for place, real in places.items():
            whole = whole.replace(place, real)
        return subprocess.run(
            ["bash", "-c", whole], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False
        )

    return script


def test_the_page_names_every_program_that_it_uses() -> None:
    assert INSTEAD.keys() == {"buf", "newman", "openapi2postmanv2"}
    assert len(ROWS) > 8


@pytest.mark.parametrize("row", ROWS)
def test_a_row(run: Run, row: str) -> None:
    done = run(row)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_scripts_in_their_order(run: Run) -> None:
    done = run("\n".join(SCRIPTS[1:]))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    for shown in ('"heatmap"', "Response trailers", '"event": "done"', "camserve.v1.JobService/WatchJob", "200 OK"):
        assert shown in done.stdout


def test_what_the_page_shows_is_what_is_printed(run: Run) -> None:
    shown = [text for kind, text in BLOCKS if kind == "console"]
    assert shown
    for text in shown:
        command, _, expected = text.removeprefix("$ ").partition("\n")
        done = run(command)
        pattern = re.escape(expected.strip()).replace("…", ".+")
        assert re.fullmatch(pattern, (done.stdout + done.stderr).strip())


def test_the_command_of_the_quick_start(run: Run) -> None:
    (command,) = re.findall(r"^(grpcurl .*?^END$)", QUICK_START, re.MULTILINE | re.DOTALL)
    done = run(f'cd "$WORK" && cp {GOLDEN / "star.png"} photo.png\n{command}')
    assert done.returncode == 0, done.stderr
    assert '"label": "star"' in done.stdout
    assert '"heatmap"' in done.stdout


def test_the_commands_of_the_readme(run: Run) -> None:
    (commands,) = re.findall(r"^```sh\n(grpcurl .*?)^```", README, re.MULTILINE | re.DOTALL)
    done = run(commands)
    assert done.returncode == 0, done.stderr
    assert "camserve.v1.InferenceService\n" in done.stdout
    assert '"label": "star"' in done.stdout
