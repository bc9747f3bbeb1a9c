"""Origins that answer as a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[asyncio.StreamWriter, str], Awaitable[None]]
LIMIT_BYTES = 1000


@dataclass
class Origin:
    """A server that answers as it is told and keeps what it was asked."""

    port: int = 0
    connections: int = 0
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/a.png"


@asynccontextmanager
async def origin(answer: Answer, *, port: int = 0) -> AsyncIterator[Origin]:
    seen = Origin()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            seen.requests.append(request)
            await answer(writer, request.split(" ")[1])
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    seen.port = server.sockets[0].getsockname()[1]
    async with server:
        yield seen


def says(text: str, body: bytes = b"") -> Answer:
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(text.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    return answer
