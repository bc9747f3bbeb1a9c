"""A faulty proxy in front of the real edge: it alters one thing of what passes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

# A body that is announced to be longer never comes: the kit sends its head only.
_LONGEST_BODY = 10_000_000


@dataclass
class Exchange:
    """A request, and its answer, which alterations change in place; header names are lower-case."""

    verb: str
    target: str
    asked_headers: dict[str, str]
    asked_body: bytes
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes = b""

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return unquote(self.target.partition("?")[2])

    @property
    def asked(self) -> Any:
        """The JSON that was sent; an empty object where none was."""
        try:
            return json.loads(self.asked_body)
        except ValueError:
            return {}

    @property
    def said(self) -> Any:
        """The JSON that is answered; an empty object where it is none."""
        try:
            return json.loads(self.content)
        except ValueError:
            return {}

    def say(self, value: Any) -> None:
        self.content = json.dumps(value).encode()

    @property
    def code(self) -> str:
        error = self.said.get("error") if isinstance(self.said, dict) else None
        return str(error.get("code", "")) if isinstance(error, dict) else ""

    @property
    def tenant_token(self) -> str:
        return self.asked_headers.get("authorization", "").removeprefix("Bearer ")


Alter = Callable[[Exchange], None]


@dataclass
class FaultyProxy:
    """Passes requests on to an edge; `alter` changes each answer, `before` each request."""

    edge: tuple[str, int]
    alter: Alter | None = None
    before: Alter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while exchange := await _asked(reader):
                if self.before:
                    self.before(exchange)
                await self._pass_on(exchange)
                if self.alter:
                    self.alter(exchange)
                writer.write(_answer(exchange))
                await writer.drain()
                if int(exchange.asked_headers.get("content-length", "0")) > _LONGEST_BODY:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _pass_on(self, exchange: Exchange) -> None:
        reader, writer = await asyncio.open_connection(*self.edge)
        try:
            headers = exchange.asked_headers | {"connection": "close"}
            lines = [f"{exchange.verb} {exchange.target} HTTP/1.1"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + exchange.asked_body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            exchange.status, exchange.headers = int(head.split(" ")[1]), _headers(head)
            exchange.content = await _body(reader, exchange)
        finally:
            writer.close()


async def _asked(reader: asyncio.StreamReader) -> Exchange | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    verb, target, _ = head.split("\r\n")[0].split(" ")
    headers = _headers(head)
    exchange = Exchange(verb, target, headers, b"")
    if headers.get("transfer-encoding") == "chunked":
        # As it came, frames and all: the edge reads them.
        while not exchange.asked_body.endswith(b"0\r\n\r\n"):
            exchange.asked_body += await reader.readuntil(b"\r\n")
    elif (length := int(headers.get("content-length", "0"))) <= _LONGEST_BODY:
        exchange.asked_body = await reader.readexactly(length)
    return exchange


async def _body(reader: asyncio.StreamReader, exchange: Exchange) -> bytes:
    if "content-length" in exchange.headers:
        return await reader.readexactly(int(exchange.headers["content-length"]))
    if exchange.headers.pop("transfer-encoding", "") != "chunked":
        return b""
    content = b""
    while length := int(await reader.readuntil(b"\r\n"), 16):
        content += await reader.readexactly(length)
        await reader.readexactly(2)
    return content


def _headers(head: str) -> dict[str, str]:
    lines = (line.partition(":") for line in head.strip().split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _answer(exchange: Exchange) -> bytes:
    headers = {name: value for name, value in exchange.headers.items() if name != "connection"}
    if exchange.status != 204 or exchange.content:
        headers["content-length"] = str(len(exchange.content))
    lines = [f"HTTP/1.1 {exchange.status} Altered", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + exchange.content


@asynccontextmanager
async def faulty_proxy(port: int, edge_url: str) -> AsyncIterator[FaultyProxy]:
    """A proxy that listens at a port of this machine."""
    host, _, edge_port = edge_url.removeprefix("http://").partition(":")
    proxy = FaultyProxy((host, int(edge_port)))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=2**24)
    try:
        yield proxy
    finally:
        server.close()
        await server.wait_closed()
