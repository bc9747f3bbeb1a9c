"""A local object store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.clock import FakeClock

from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ring(tmp_path: Path, clock: FakeClock) -> KeyRing:
    return KeyRing(tmp_path / "keys" / "objects.json", clock=clock)


@pytest.fixture
async def objects(tmp_path: Path, ring: KeyRing, clock: FakeClock) -> AsyncIterator[LocalObjects]:
    store = LocalObjects(tmp_path / "objects", ring, clock=clock)
    yield store
    await store.close()
