"""A server that webhooks are sent to, which answers as its test tells it."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.conftest import free_ports


@dataclass
class Event:
    """One POST that came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["x-event-id"]


@dataclass
class Receiver:
    """What came, and the answers to come: (status, headers) by path, the last one for good; None never answers."""

    port: int
    events: list[Event] = field(default_factory=list)
    answers: dict[str, list[tuple[int, dict[str, str]] | None]] = field(
        default_factory=lambda: defaultdict(lambda: [(204, {})])
    )
    changed: threading.Condition = field(default_factory=threading.Condition)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def place(self) -> str:
        return f"127.0.0.1/32:{self.port}"

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Event]:
        return [event for event in list(self.events) if event.path == path]

    def wait(self, path: str, count: int, within_s: float = 30) -> list[Event]:
        """Returns the events that came to a path once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.at(path)) >= count, within_s), self.at(path)
        return self.at(path)


@contextmanager
def receiver(port: int | None = None) -> Iterator[Receiver]:
    """A receiver that listens."""
    seen = Receiver(port or free_ports(1)[0])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            with seen.changed:
                seen.events.append(Event(self.path, headers, body))
                answers = seen.answers[self.path]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                seen.changed.notify_all()
            if answer is None:
                seen.released.wait(60)
                return
            self.send_response(answer[0])
            for name, value in {"content-length": "0", **answer[1]}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

    server = Server(("127.0.0.1", seen.port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield seen
    finally:
        seen.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
