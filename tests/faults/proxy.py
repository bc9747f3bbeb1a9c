"""A proxy that is slow or rude on command: the fault between a server and what it depends on."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class FaultProxy:
    """Passes bytes between callers and `target` (host and port). What is set here counts at once, on every connection.

    `delay_s` is how late each piece of a reply is; `answer` is said instead of the target's, and the connection closed;
    `closed` closes whatever comes. `taken` counts the connections that came.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.delay_s = 0.0
        self.answer: bytes | None = None
        self.closed = False
        self.taken = 0
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def run(self, started: threading.Event) -> None:
        """Serves until `stop`."""
        self._loop = asyncio.get_running_loop()
        server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        self._abort()
        await asyncio.gather(*self._serving)

    def cut(self) -> None:
        """Breaks every connection."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._abort)

    def stop(self) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopping.set)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = [writer]
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            if not self.closed:
                behind, back = await asyncio.open_connection(*self.target)
                opened.append(back)
                self._writers.add(back)
                ways = [self._ask(reader, back, writer), self._reply(behind, writer)]
                tasks = [asyncio.create_task(way) for way in ways]
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        for one in opened:
            self._writers.discard(one)
            one.close()
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def _ask(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(65536):
            if self.closed:
                return
            if self.answer is not None:
                writer.write(self.answer)
                await writer.drain()
                return
            back.write(data)
            await back.drain()

    async def _reply(self, behind: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await behind.read(65536):
            await asyncio.sleep(self.delay_s)
            writer.write(data)
            await writer.drain()


@contextmanager
def fault_proxy(host: str, port: int) -> Iterator[FaultProxy]:
    """A proxy on a thread of its own."""
    proxy = FaultProxy((host, port))
    started = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.run(started)))
    thread.start()
    started.wait()
    try:
        yield proxy
    finally:
        proxy.stop()
        thread.join()


def saying(status: bytes, body: bytes = b"", headers: bytes = b"") -> bytes:
    """Returns an answer of HTTP, after which the connection ends."""
    head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n%s\r\n" % (status, len(body), headers)
    return head + body
