"""The port for those who watch a replica: metrics for Prometheus, `/ready` and `/live` for its supervisor."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

# How long the event loop may take to say that it runs.
_LOOP_WITHIN_S = 1.0


class StatusPort:
    """Answers from threads of its own, so that a loop that hangs is told of and not waited for.

    `/ready` is 200 while `ready()`, else 503; `/live` is 200 while the event loop runs. Everything else is metrics.
    """

    def __init__(self, host: str, port: int, ready: Callable[[], bool], loop: asyncio.AbstractEventLoop) -> None:
        """Opens the port; raises OSError when it is taken."""
        self._ready = ready
        self._loop = loop
        self._metrics = make_wsgi_app()
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = make_server(host, port, self._answer, server_class=kind, handler_class=_Handler)
        except OSError as error:
            raise OSError(f"{host}:{port} cannot be bound: {error.strerror}; see CAMSERVE_METRICS_PORT") from None
        threading.Thread(target=self._server.serve_forever, name="status", daemon=True).start()

    def close(self) -> None:
        """Ends it; blocks for up to half a second."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        states = {"/ready": self._ready, "/live": self._runs}
        state = states.get(environ["PATH_INFO"])
        if state is None:
            return cast(Iterable[bytes], self._metrics(environ, start_response))
        good = state()
        start_response("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
        return [b"yes\n" if good else b"no\n"]

    def _runs(self) -> bool:
        seen: concurrent.futures.Future[None] = concurrent.futures.Future()
        try:
            self._loop.call_soon_threadsafe(seen.set_result, None)
            seen.result(_LOOP_WITHIN_S)
        except (RuntimeError, TimeoutError):  # closed, or busy
            return False
        return True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = 10  # who says nothing does not keep a thread

    def log_message(self, *_: object) -> None:
        """Says nothing: it is asked every few seconds."""
