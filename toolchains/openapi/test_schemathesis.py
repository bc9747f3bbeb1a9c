"""The OpenAPI document against the real edge, as Schemathesis understands it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import Stack

HERE = Path(__file__).parent


@pytest.mark.timeout(600)
def test_the_edge_keeps_to_its_document(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    stack = make_stack()  # the shared one has a model that cannot be served, which is 503
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            f"--config-file={HERE / 'schemathesis.toml'}",
            "run",
            f"{stack.edge_url}/v1/openapi.json",
            f"--header=Authorization: Bearer {stack.token()}",
        ],
        cwd=tmp_path,  # where it keeps what it found
        env={**os.environ, "PYTHONPATH": f"{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
