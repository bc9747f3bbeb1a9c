"""A virus scanner that says that all is clean, when a test lets it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Scanner(socketserver.ThreadingTCPServer):
    """Speaks enough of ClamAV's protocol for one image a connection; `verdicts` holds them back while it is not set."""

    daemon_threads = True

    def __init__(self) -> None:
        self.verdicts = threading.Event()
        self.verdicts.set()
        super().__init__(("127.0.0.1", 0), _Scan)

    @property
    def address(self) -> str:
        return f"tcp:127.0.0.1:{self.server_address[1]}"


class _Scan(socketserver.StreamRequestHandler):
    server: Scanner

    def handle(self) -> None:
        if not self.rfile.read(len(b"zINSTREAM\0")).startswith(b"zI"):
            return
        while length := int.from_bytes(self.rfile.read(4), "big"):
            self.rfile.read(length)
        self.server.verdicts.wait()
        self.wfile.write(b"stream: OK\0")


@contextmanager
def scanner() -> Iterator[Scanner]:
    """A scanner on threads of its own."""
    with Scanner() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.verdicts.set()
            server.shutdown()
            thread.join()
