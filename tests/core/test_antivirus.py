"""A scanner that keeps failing is left alone; images pass or are refused at once, as the setting says."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.antivirus import Antivirus
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.outbound.clamd import Clamd


class Daemon:
    """A scanner that says `reply` to every image and answers pings; without one it hangs up, or waits if it `hangs`."""

    reply: bytes | None = None
    hangs = False
    connections = 0
    port = 0

    def __init__(self) -> None:
        self.has_image = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            command = await reader.readuntil(b"\0")
            if command == b"zINSTREAM\0":
                while length := struct.unpack(">I", await reader.readexactly(4))[0]:
                    await reader.readexactly(length)
                self.has_image.set()
            if self.hangs:
                await reader.read()
            if self.reply is not None:
                writer.write(b"PONG\0" if command == b"zPING\0" else self.reply)
                await writer.drain()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    async with daemon.running():
        yield daemon


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def antivirus(daemon: Daemon, clock: FakeClock, *, fail_open: bool = False) -> Antivirus:
    return Antivirus(Clamd(f"tcp:127.0.0.1:{daemon.port}", timeout_s=5), clock, fail_open=fail_open)


async def outcome(scanner: Antivirus) -> Reason | None:
    with SharedBuffer.create("test") as image:
        image.append(b"image")
        try:
            await scanner.check(image)
        except ApiError as error:
            return error.reason
    return None


async def test_a_scanner_that_fails_is_not_asked_for_a_while_and_images_are_refused(daemon, clock):
    scanner = antivirus(daemon, clock)
    assert [await outcome(scanner) for _ in range(5)] == [Reason.UPSTREAM_FAILED] * 5
    assert daemon.connections == 5
    assert [await outcome(scanner) for _ in range(5)] == [Reason.CIRCUIT_OPEN] * 5
    assert not await scanner.works()
    assert daemon.connections == 5
    daemon.reply = b"stream: OK\0"
    clock.advance(1)
    assert [await outcome(scanner), await scanner.works()] == [None, True]
    assert daemon.connections == 7


async def test_where_images_may_pass_they_pass_at_once(daemon, clock):
    scanner = antivirus(daemon, clock, fail_open=True)
    assert [await outcome(scanner) for _ in range(9)] == [None] * 9
    assert daemon.connections == 5
    daemon.reply = b"stream: Eicar FOUND\0"
    clock.advance(1)
    assert [await outcome(scanner) for _ in range(2)] == [Reason.IMAGE_REJECTED] * 2


async def test_a_scanner_that_answers_without_a_verdict_goes_on_being_asked(daemon, clock):
    daemon.reply = b"INSTREAM size limit exceeded. ERROR\0"
    scanner = antivirus(daemon, clock)
    assert [await outcome(scanner) for _ in range(7)] == [Reason.UPSTREAM_FAILED] * 7
    assert daemon.connections == 7


async def test_a_question_after_its_health_tries_the_scanner_again(daemon, clock):
    scanner = antivirus(daemon, clock)
    assert [await scanner.works() for _ in range(6)] == [False] * 6
    assert daemon.connections == 5
    daemon.reply = b"stream: OK\0"
    assert await outcome(scanner) is Reason.CIRCUIT_OPEN
    clock.advance(1)
    assert await scanner.works()
    assert await outcome(scanner) is None


async def leaves(scanner: Antivirus, daemon: Daemon, clock: FakeClock, *, after_s: float) -> None:
    asking = asyncio.create_task(outcome(scanner))
    await daemon.has_image.wait()
    daemon.has_image.clear()
    clock.advance(after_s)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_callers_who_give_up_a_scanner_that_hangs_tell_that_it_does(daemon, clock):
    daemon.hangs = True
    scanner = antivirus(daemon, clock)
    for _ in range(6):
        await leaves(scanner, daemon, clock, after_s=1)
    for _ in range(5):
        await leaves(scanner, daemon, clock, after_s=6)
    assert await outcome(scanner) is Reason.CIRCUIT_OPEN


async def test_an_upload_that_breaks_off_hands_the_try_on(daemon, clock):
    scanner = antivirus(daemon, clock)
    for _ in range(5):
        await outcome(scanner)
    daemon.reply = b"stream: OK\0"
    clock.advance(1)
    with scanner.inspection() as inspection:
        await inspection.feed(b"part")
        assert await outcome(scanner) is Reason.CIRCUIT_OPEN
    assert await outcome(scanner) is None
