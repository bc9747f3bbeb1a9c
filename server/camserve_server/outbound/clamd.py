"""ClamAV's daemon, asked over its INSTREAM command (clamd(8)): the bytes go there in pieces, a verdict comes back."""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_ADDRESS = re.compile(r"unix:(?P<path>/.+)|tcp:(?P<host>[^:\s]+|\[[0-9a-fA-F:]+\]):(?P<port>[0-9]{1,5})")
_LONGEST_REPLY_BYTES = 4096
_LENGTH = struct.Struct(">I")


class ScanError(Exception):
    """There is no verdict: the daemon is away, slow, or does not take so much."""


class NoVerdictError(ScanError):
    """The daemon answers, but has no verdict on these bytes."""


class Clamd:
    """A daemon at `unix:/path` or `tcp:host:port`; `timeout_s` is for each step of a scan."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        """Raises ValueError for an address of another form."""
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise ValueError(f"{address!r} is not like unix:/run/clamav/clamd.ctl or tcp:127.0.0.1:3310")
        self._path = match["path"]
        self._host, self._port = (match["host"] or "").strip("[]"), int(match["port"] or 0)
        self._timeout_s = timeout_s

    async def begin(self) -> Scan:
        """Begins a scan, which the caller closes; raises ScanError."""
        async with _within(self._timeout_s):
            reader, writer = await self._connect()
        writer.write(b"zINSTREAM\0")
        return Scan(reader, writer, self._timeout_s)

    async def ping(self) -> None:
        """Returns when the daemon answers; raises ScanError."""
        async with _within(self._timeout_s):
            reader, writer = await self._connect()
            try:
                writer.write(b"zPING\0")
                reply = await reader.readuntil(b"\0")
            finally:
                writer.close()
        if reply != b"PONG\0":
            raise ScanError(repr(reply))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._path:
            return await asyncio.open_unix_connection(self._path, limit=_LONGEST_REPLY_BYTES)
        return await asyncio.open_connection(self._host, self._port, limit=_LONGEST_REPLY_BYTES)


class Scan:
    """One scan on a connection of its own."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, timeout_s: float) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes; raises ScanError when they are not taken in time."""
        async with _within(self._timeout_s):
            await self._send(_LENGTH.pack(len(data)), data)

    async def is_clean(self) -> bool:
        """Ends the bytes and returns whether nothing was found in them; raises ScanError when there is no verdict."""
        async with _within(self._timeout_s):
            await self._send(_LENGTH.pack(0))
            reply = (await self._reader.readuntil(b"\0"))[:-1].decode(errors="replace")
        if reply == "stream: OK":
            return True
        if reply.startswith("stream: ") and reply.endswith(" FOUND"):
            return False
        raise NoVerdictError(reply)

    def close(self) -> None:
        """Hangs up."""
        self._writer.close()

    async def _send(self, *parts: bytes | bytearray | memoryview) -> None:
        # A daemon that has had enough says so and hangs up: its reply is what counts then, not the broken pipe.
        with suppress(ConnectionError):
            for part in parts:
                if not self._writer.is_closing():
                    self._writer.write(part)
            await self._writer.drain()


@asynccontextmanager
async def _within(timeout_s: float) -> AsyncIterator[None]:
    """Turns what goes wrong on the way to the daemon into ScanError."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError) as error:
        raise ScanError(repr(error)) from error
