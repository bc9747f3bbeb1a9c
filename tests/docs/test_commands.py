"""What pages tell to run for hours, on several machines or with what only others have: that it would begin."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tests.docs.snippets import ROOT, Block, blocks, pages
from tests.docs.stand_in import PROGRAM, NotBegunError, begin, check_settings, noted

PAGES = (
    "README.md",
    "docs/authentication.md",
    "docs/model-versions.md",
    "docs/models.md",
    "docs/performance.md",
    "docs/releasing.md",
    "docs/reliability.md",
    "docs/storage.md",
    "docs/supply-chain.md",
)
OURS = "tests/docs/test_commands.py"
BLOCKS = [block for page in pages() for block in blocks(page) if block.run_by == OURS]


def try_it(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Runs a script with programs that only note how they are called, and looks at each call; returns how many."""
    programs, notes = tmp_path / "bin", tmp_path / "notes"
    programs.mkdir()
    notes.mkdir()
    for name in ("camserve", "make", "python"):
        (programs / name).write_text(PROGRAM.format(folder=notes))
        (programs / name).chmod(0o755)
    # At the end all of its settings are there.
    script = f"set -euo pipefail\n{text.replace('.venv/bin/', '')}\nwait\ncamserve config"
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    calls = noted(notes)
    for arguments, settings in calls:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            check_settings(settings)
            begin(arguments)
    return len(calls) - 1


def test_the_pages_are_those_that_say_so():
    assert {str(block.page.relative_to(ROOT)) for block in BLOCKS} == set(PAGES)
    assert {block.language for block in BLOCKS} == {"sh"}


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.place)
def test_it_would_begin(block: Block, tmp_path, monkeypatch):
    commands = try_it(block.text, tmp_path, monkeypatch)
    assert commands or "export CAMSERVE_" in block.text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("camserve models add birds --wieghts birds.pt", "--wieghts"),
        ("camserve modles list", "modles"),
        ("CAMSERVE_EDGE_PORT=none camserve up", "CAMSERVE_EDGE_PORT"),
        ("export CAMSERVE_EDGE_PROT=8081", "CAMSERVE_EDGE_PROT"),
        ("camserve serve --port 1 &", "--port"),
        ("make tset", "there is no target tset"),
        (".venv/bin/python -m benchmarks --quicker", "benchmarks has no option --quicker"),
    ],
)
def test_what_would_not_begin_is_found(text: str, why: str, tmp_path, monkeypatch):
    with pytest.raises(NotBegunError, match=why):
        try_it(text, tmp_path, monkeypatch)
