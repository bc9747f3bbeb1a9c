"""Where the tools are, and addresses that no other run has."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BIN = Path(__file__).parents[1] / "bin"


def tool(name: str) -> str:
    """The path of a tool: what the Makefile installed, else what is on PATH."""
    path = f"{BIN}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = shutil.which(name, path=path)
    assert found, f"{name} is missing: use `make test-deploy`"
    return found


@pytest.fixture(scope="session")
def addresses() -> Iterator[str]:
    return (f"127.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}.{number}" for number in itertools.count(1))
