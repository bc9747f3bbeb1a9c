"""A stack for the snippets of the pages, which leave tenants, jobs and routes behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import Stack, make_stack, start_stack, stop_stack

__all__ = ["make_stack"]

MODELS = Path(__file__).parent / "models"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for the pages that leave routes as they were; `animals` is a model whose labels changed."""
    data_dir = tmp_path_factory.mktemp("docs")
    shutil.copytree(MODELS, data_dir / "models")
    running = start_stack(data_dir)
    yield running
    stop_stack(running)
