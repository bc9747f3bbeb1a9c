"""A small server that events of webhooks are sent to, for deployments that reach this machine."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

_LONGEST_BODY = 1024 * 1024
_REASONS = {204: "No Content", 302: "Found", 410: "Gone", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Event:
    """One request that came; `headers` have lower-case names."""

    verb: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> Any:
        """The JSON value of the body; raises ValueError when it is none."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """What came, by path, and the answer that each path gives: a status and headers, 204 by default."""

    url: str
    events: list[Event] = field(default_factory=list)
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=lambda: defaultdict(lambda: (204, {})))
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None

    async def start(self, address: str) -> None:
        """Listens at HOST:PORT; raises OSError when it cannot."""
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(self._serve, host.strip("[]"), int(port))

    async def close(self) -> None:
        """Stops listening."""
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    def at(self, path: str) -> list[Event]:
        """Returns what came to a path."""
        return [event for event in self.events if event.path == path]

    async def wait(self, path: str, count: int = 1) -> list[Event]:
        """Returns what came to a path once there is so much."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.at(path)) >= count)
        return self.at(path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            event = await _read(reader)
            async with self._came:
                self.events.append(event)
                self._came.notify_all()
            status, headers = self.answers[event.path]
            lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Answer')}", "connection: close"]
            lines += [] if status == 204 else ["content-length: 0"]
            lines += [f"{name}: {value}" for name, value in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, ValueError):
            pass  # not a request: nothing to note, and nobody to answer
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Event:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    verb, path, _ = first.split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = int(headers.get("content-length", "0"))
    if length > _LONGEST_BODY:
        raise ValueError("no event is as long")
    body = await reader.readexactly(length)
    return Event(verb, path, headers, body)
