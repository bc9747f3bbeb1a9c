"""The threads of an operation sleep while they wait, unless the operator wants it otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """\
from camserve_server.base.config import wait_asleep

wait_asleep()
import torch
"""


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings another OpenMP elsewhere")
@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({}, "OMP_WAIT_POLICY = 'PASSIVE'"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "OMP_WAIT_POLICY = 'ACTIVE'"),
        ({"GOMP_SPINCOUNT": "77"}, "GOMP_SPINCOUNT = '77'"),
    ],
)
def test_openmp_says_how_its_threads_wait(own: dict[str, str], expected: str) -> None:
    rest = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=rest | {"OMP_DISPLAY_ENV": "VERBOSE"} | own,
        capture_output=True,
        text=True,
        check=True,
    )
    assert expected in done.stderr
