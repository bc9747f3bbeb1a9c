"""Runs the snippets of a page as somebody would who pastes them one after the other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image
from tests.conftest import Stack
from tests.docs.printed import is_shown
from tests.docs.snippets import ROOT, Block
from tests.images import GOLDEN, opened
from training.shapes_scenes import draw_scene

WITHIN_S = 600.0
# What `camserve models calibrate` asks for, and some more.
PICTURES, WRONG = 120, 6
# What runs a file with a whole program of a language, and how such a file's name ends.
_PROGRAMS = {
    "python": ("py", "python"),
    "go": ("go", "go run"),
    "js": ("mjs", "node"),
    "java": ("java", "java"),
}
# What pages tell to install is there, as what is being worked on, whose place a copy would take.
_PIP = """\
#!/bin/sh
test "$1" = install && test -e "${2%%\\[*}/pyproject.toml"
"""


def run_page(blocks: list[Block], folder: Path, stack: Stack) -> None:
    """Runs the blocks in an empty folder in which the repository's files lie; fails at the first that fails."""
    work, kept = folder / "work", folder / "kept"
    _prepare(work, kept, blocks)
    script = "".join(_part(number, block, work, kept, stack) for number, block in enumerate(blocks))
    process = subprocess.Popen(
        ["bash", "-c", f"set -euo pipefail\n{script}"],
        cwd=work,
        env=_environment(stack, work, kept) | _token(stack, blocks),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=WITHIN_S)
    finally:
        # What a snippet left running in the background.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        number = len(list(kept.glob("*.out"))) - 1
        pytest.fail(f"{_told(blocks[number], number, kept)}\n{said}")
    for number, block in enumerate(blocks):
        if block.prints is not None:
            printed = (kept / f"{number}.out").read_text()
            if not is_shown(block.prints.language, here(block.prints.text, stack), printed):
                pytest.fail(f"{block.prints.place}: the page shows\n{block.prints.text}\nand not\n{printed}")


def here(text: str, stack: Stack) -> str:
    """Returns a text of a page with the addresses of the stack."""
    return (
        text.replace("http://127.0.0.1:8080", stack.edge_url)
        .replace("127.0.0.1:8080", stack.edge_url.removeprefix("http://"))
        .replace("127.0.0.1:50051", stack.grpc_target)
    )


def _prepare(work: Path, kept: Path, blocks: list[Block]) -> None:
    """Makes the folders: what the repository has, and pictures of the reader's own."""
    work.mkdir()
    kept.mkdir()
    for path in ROOT.iterdir():
        if not path.name.startswith("."):
            (work / path.name).symlink_to(path)
    _environment_like(work / ".venv")
    for name, shape in {"photo": "star", "other": "ring"}.items():
        picture = opened((GOLDEN / f"{shape}.png").read_bytes()).convert("RGB")
        picture.save(work / f"{name}.jpg", quality=95)
        picture.resize((1300, 1300)).save(work / "slide.tif")
    if any("photos/" in block.text for block in blocks):
        _draw(work / "photos")
    # An answer of 400 or more fails the command, but where the page shows what it answers.
    (kept / ".curlrc").write_text("fail\nshow-error\n")
    _write_pip(kept)


def _environment_like(folder: Path) -> None:
    """Makes what runs as this environment does, but for pip."""
    folder.mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != "bin":
            (folder / path.name).symlink_to(path)
    (folder / "bin").mkdir()
    for path in (Path(sys.prefix) / "bin").iterdir():
        if path.name != "pip":
            (folder / "bin" / path.name).symlink_to(path)
    _write_pip(folder / "bin")


def _write_pip(folder: Path) -> None:
    (folder / "pip").write_text(_PIP)
    (folder / "pip").chmod(0o755)


def _draw(folder: Path) -> None:
    """Draws pictures of known classes, each into the folder of its class, and some into that of another."""
    names = [label["id"] for label in json.loads((GOLDEN.parent / "labels.json").read_text())]
    for number in range(PICTURES):
        label = number % len(names)
        told = names[(label + 1) % len(names) if number < WRONG else label]
        (folder / told).mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_scene(7, number, label).pixels).save(folder / told / f"{number}.png")


def _part(number: int, block: Block, work: Path, kept: Path, stack: Stack) -> str:
    strict = kept if block.prints is None else work
    text = here(block.text, stack)
    if block.language != "sh":
        ending, program = _PROGRAMS[block.language]
        file = kept / f"Snippet{number}.{ending}"
        file.write_text(text)
        text = f"{program} {file}"
    return f"export CURL_HOME={strict}\nexec >{kept}/{number}.out 2>{kept}/{number}.err\n{text}\n"


def _environment(stack: Stack, work: Path, kept: Path) -> dict[str, str]:
    return {
        **stack.environment,
        "PATH": f"{kept}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CAM_ADDRESS": stack.edge_url,
        "CAM_LOGIN_FILE": str(work / "login.json"),
    }


def _token(stack: Stack, blocks: list[Block]) -> dict[str, str]:
    """Returns a token for the reader of a page that says where there are some, but makes none."""
    if any("TOKEN=$(" in block.text for block in blocks if block.language == "sh"):
        return {}
    return {"CAM_TOKEN": stack.token(tenant=f"docs-{uuid4().hex[:12]}")}


def _told(block: Block, number: int, kept: Path) -> str:
    said = "".join((kept / f"{number}.{kind}").read_text()[-4000:] for kind in ("out", "err"))
    return f"{block.place}:\n{block.text}\nfailed:\n{said}"
