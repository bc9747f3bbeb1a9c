from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from camserve_server.outbound.clamd import Clamd, ScanError


@asynccontextmanager
async def daemon(reply: bytes | None, *, reads: int | None = None) -> AsyncIterator[tuple[Clamd, bytearray]]:
    """A server that takes an INSTREAM, keeps what it was shown and says `reply`; None never answers."""
    shown = bytearray()
    serving = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
            while length := struct.unpack(">I", await reader.readexactly(4))[0]:
                shown.extend(await reader.readexactly(length))
                if reads is not None and len(shown) >= reads:
                    break
            if reply is None:
                await reader.read()
            else:
                writer.write(reply)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield Clamd(f"tcp:127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout_s=0.5), shown
        await asyncio.gather(*serving)


async def verdict(clamd: Clamd, *pieces: bytes) -> bool:
    scan = await clamd.begin()
    try:
        for piece in pieces:
            await scan.feed(piece)
        return await scan.is_clean()
    finally:
        scan.close()


@pytest.mark.parametrize(("reply", "clean"), [(b"stream: OK\0", True), (b"stream: Eicar-Test FOUND\0", False)])
async def test_a_verdict_is_that_of_all_the_bytes(reply, clean):
    async with daemon(reply) as (clamd, shown):
        assert await verdict(clamd, b"one", b"two") is clean
        assert shown == b"onetwo"


@pytest.mark.parametrize(
    "reply",
    [b"INSTREAM size limit exceeded. ERROR\0", b"stream: OK", b"", b"nonsense\0", b"x" * 10_000, None],
)
async def test_anything_else_is_no_verdict(reply):
    async with daemon(reply) as (clamd, _):
        with pytest.raises(ScanError):
            await verdict(clamd, b"one")


async def test_a_daemon_that_has_had_enough_is_heard():
    async with daemon(b"stream: Found-Early FOUND\0", reads=3) as (clamd, _):
        assert not await verdict(clamd, b"one")


async def test_a_daemon_that_is_away_gives_no_verdict(tmp_path):
    for address in (f"unix:{tmp_path}/none.sock", "tcp:127.0.0.1:1"):
        with pytest.raises(ScanError):
            await Clamd(address, timeout_s=1).begin()


@pytest.mark.parametrize("address", ["", "unix:", "127.0.0.1:3310", "tcp:a b:1", "tcp:host", "http://a"])
def test_another_address_is_refused(address):
    with pytest.raises(ValueError, match=r"clamd\.ctl"):
        Clamd(address, timeout_s=1)
