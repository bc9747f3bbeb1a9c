"""The commands of docs/operations.md and docs/observability.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.kept import keep

DOCS = Path(__file__).parents[2] / "docs"
PAGES = "".join((DOCS / name).read_text() for name in ("operations.md", "observability.md"))

pytestmark = pytest.mark.timeout(600)


def script(holding: str) -> str:
    """The block of the pages with a word in it."""
    (found,) = [text for text in re.findall(r"^```sh\n(.*?)^```", PAGES, re.MULTILINE | re.DOTALL) if holding in text]
    return found


def run(text: str, cwd: Path, environment: dict[str, str]) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", text]
    done = subprocess.run(
        command, cwd=cwd, env=environment | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_backup_brings_everything_back(tmp_path):
    running = start_stack(tmp_path / "first")
    try:
        headers = running.headers()
        with httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as api:
            kept = keep(api)
    finally:
        stop_stack(running)
    *lines, start = script("backup.tar").strip().splitlines()
    assert start == "CAMSERVE_DATA_DIR=$PWD/restored camserve up"
    run("\n".join(lines), tmp_path, running.environment)
    again = start_stack(tmp_path / "restored")
    try:
        # The token of before counts, so the keys are the same.
        with httpx.Client(base_url=again.edge_url, headers=headers, timeout=60) as api:
            kept.is_there(api)
        metrics = script("curl -sf http://127.0.0.1:9464").replace("9464", str(again.metrics_port))
        assert 'code="OK"' in run(metrics, tmp_path, again.environment)
        known = set(re.findall(r"^# TYPE (camserve_\w+) ", metrics_of(again), re.MULTILINE))
        named = set(re.findall(r"\b(camserve_\w+[a-z])\b(?!\*)", PAGES))
        assert named - known == set()
        assert "ready" in run(script("camserve top"), tmp_path, again.environment)
        assert "whole" in run(script("camserve audit"), tmp_path, again.environment)
    finally:
        stop_stack(again)


def metrics_of(stack) -> str:
    return httpx.get(f"http://127.0.0.1:{stack.metrics_port}/metrics").text
