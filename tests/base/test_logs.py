"""Logs: their loss must cost nothing but themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import structlog
from camserve_server.base.logs import configure_logs
from camserve_server.base.telemetry import LOG_FAILURES
configure_logs("info")
structlog.get_logger("test").info("said", a=1)
print(LOG_FAILURES._value.get())
"""


def said(stderr: int) -> str:
    """Returns what a process prints that logs one line to a descriptor."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=stderr, check=True
    ).stdout.decode()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_line_that_cannot_be_written_is_lost_and_counted() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        assert float(said(full)) >= 1
    finally:
        os.close(full)


def test_lines_are_json(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        assert float(said(log.fileno())) == 0
    line = json.loads((tmp_path / "log").read_text())
    assert (line["event"], line["a"], line["level"]) == ("said", 1, "info")
