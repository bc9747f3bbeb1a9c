"""The script that checks an edge from outside."""

from __future__ import annotations

import os
import subprocess

from tests.conftest import Stack
from tests.edge.conftest import Edge

from camserve_server.base import bundle

SCRIPT = bundle.ENVOY / "verify.sh"


def _run(url: str, token: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "EDGE_URL": url, "TOKEN": token}
    return subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, timeout=50, check=False)


def test_the_script_passes_against_the_running_stack(stack: Stack) -> None:
    ended = _run(stack.edge_url, stack.token())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "FAILED" not in ended.stdout


def test_the_script_fails_when_a_check_does(edge: Edge) -> None:
    ended = _run(f"http://127.0.0.1:{edge.port}", "no-token")
    assert ended.returncode == 1
    assert "FAILED" in ended.stdout
