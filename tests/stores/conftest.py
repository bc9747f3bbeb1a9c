"""What the tests of the stores share: a local object store, and jobs with their outbox."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from tests.clock import FakeClock

from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.webhooks import Webhooks


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


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    return Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")


@pytest.fixture
def outbox(redis: Redis) -> Outbox:
    return Outbox(redis)


@pytest.fixture
def jobs(redis: Redis, sealer: Sealer, outbox: Outbox) -> Jobs:
    return Jobs(redis, sealer, Disk(), outbox)


@pytest.fixture
def queue(redis: Redis, sealer: Sealer, outbox: Outbox) -> JobQueue:
    return JobQueue(redis, sealer, outbox)


@pytest.fixture
def webhooks(redis: Redis, sealer: Sealer) -> Webhooks:
    return Webhooks(redis, sealer, Disk())
