"""The guarded client leaves origins alone that keep failing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.clock import FakeClock
from tests.outbound.origins import LIMIT_BYTES, Origin, origin, says

from camserve_server.base.breaker import Breakers
from camserve_server.outbound.client import FetchError, GuardedClient, TooLargeError
from camserve_server.outbound.targets import Allowed


class Fetches:
    """A client that leaves origins alone, and what became of its fetches."""

    def __init__(self, seen: Origin, clock: FakeClock) -> None:
        self._seen = seen
        origins = Breakers("image_origins", monotonic=clock.monotonic, patience_s=0)
        self.client = GuardedClient(Allowed.parse([f"127.0.0.1/32:{seen.port}"]), origins)

    async def __call__(
        self, path: str = "/a.png", *, tenant: str = "a", timeout_s: float = 5
    ) -> type[Exception] | None:
        async def keep(_: bytes) -> None:
            pass

        url = f"http://127.0.0.1:{self._seen.port}{path}"
        try:
            await self.client.fetch(url, keep, limit_bytes=LIMIT_BYTES, timeout_s=timeout_s, tenant=tenant)
        except Exception as error:
            return FetchError if isinstance(error, FetchError) else type(error)
        return None


@asynccontextmanager
async def fetches(seen: Origin, clock: FakeClock) -> AsyncIterator[Fetches]:
    made = Fetches(seen, clock)
    yield made
    await made.client.close()


async def test_an_origin_that_keeps_failing_is_left_alone_by_that_tenant_and_tried_again():
    clock, answers = FakeClock(), ["HTTP/1.1 503 Busy\ncontent-length: 0"]

    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        await says(answers[-1])(writer, path)

    async with origin(answer) as seen, fetches(seen, clock) as fetch:
        assert [await fetch(f"/{n}") for n in range(9)] == [FetchError] * 9
        assert seen.connections == 5
        # Another tenant neither learns of it nor is harmed.
        assert await fetch(tenant="b") is FetchError
        assert seen.connections == 6
        answers.append("HTTP/1.1 200 OK\ncontent-length: 0")
        assert await fetch(tenant="b") is None
        assert await fetch() is FetchError
        clock.advance(1)
        assert [await fetch(), await fetch()] == [None, None]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("HTTP/1.1 404 Not Found\ncontent-length: 0", FetchError),
        ("HTTP/1.1 429 Slow\ncontent-length: 0", FetchError),
        (f"HTTP/1.1 200 OK\ncontent-length: {LIMIT_BYTES + 1}", TooLargeError),
        ("HTTP/1.1 302 Found\nlocation: https://127.0.0.1:1/\ncontent-length: 0", FetchError),
    ],
)
async def test_an_origin_that_answers_otherwise_than_asked_goes_on_being_asked(head, error):
    async with origin(says(head)) as seen, fetches(seen, FakeClock()) as fetch:
        assert [await fetch() for _ in range(7)] == [error] * 7
        assert seen.connections == 7


async def test_an_origin_that_hangs_or_is_away_is_left_alone():
    over = asyncio.Event()

    async def hang(writer: asyncio.StreamWriter, path: str) -> None:
        await over.wait()

    async with origin(hang) as seen, fetches(seen, FakeClock()) as fetch:
        assert [await fetch(timeout_s=0.2) for _ in range(7)] == [FetchError] * 7
        assert seen.connections == 5
        over.set()
    clock = FakeClock()
    async with fetches(Origin(port=seen.port), clock) as fetch:
        assert [await fetch() for _ in range(5)] == [FetchError] * 5
        async with origin(says("HTTP/1.1 200 OK\ncontent-length: 0"), port=seen.port):
            assert await fetch() is FetchError
            clock.advance(1)
            assert await fetch() is None


async def test_of_a_redirect_the_origin_that_fails_is_blamed():
    async with origin(says("HTTP/1.1 500 Broken\ncontent-length: 0")) as broken:
        location = f"http://127.0.0.1:{broken.port}/"
        async with origin(says(f"HTTP/1.1 302 Found\nlocation: {location}\ncontent-length: 0")) as seen:
            client = GuardedClient(
                Allowed.parse([f"127.0.0.1/32:{port}" for port in (seen.port, broken.port)]),
                Breakers("image_origins", monotonic=FakeClock().monotonic),
            )
            for _ in range(7):
                with pytest.raises(FetchError):
                    await client.fetch(seen.url, lambda _: asyncio.sleep(0), limit_bytes=LIMIT_BYTES, timeout_s=5)
            await client.close()
            assert (seen.connections, broken.connections) == (7, 5)
