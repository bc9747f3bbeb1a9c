"""A real Valkey for all tests of the stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.stores.redis import connect


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Valkey that runs as long as the session."""
    valkey = EmbeddedValkey(tmp_path_factory.mktemp("valkey"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        yield runner.run(valkey.start())
        runner.run(valkey.stop())


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of an empty database."""
    client = connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()
