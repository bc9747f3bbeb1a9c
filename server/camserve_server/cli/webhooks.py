"""A receiver of events on this machine, for people who write their own."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc

from camserve.v1 import webhooks_pb2, webhooks_pb2_grpc
from camserve_server.base.config import Settings
from camserve_server.base.errors import OperatorError
from camserve_server.cli.tokens import issuer
from camserve_server.core.webhook_signing import is_authentic, secret_bytes

_HOST = "127.0.0.1"
_MOST_BYTES = 1 << 20
_MOST_SHOWN_BYTES = 200
_SCOPES = ("webhooks.read", "webhooks.write")


def listen(
    settings: Settings, *, port: int, tenant: str | None, secret: str | None, answer: int, say: Callable[[str], None]
) -> None:
    """Prints every event that comes, verified, until SIGINT or SIGTERM.

    Events are verified with `secret`, or with that of a webhook of `tenant` that is registered here as long as this
    runs. Raises OperatorError when the server refuses it, OSError when the port is taken.
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with _bound(port) as server:
        url = f"http://{_HOST}:{server.server_port}/"
        given = contextlib.nullcontext([secret_bytes(secret)] if secret else [])
        with _registered(settings, tenant, url, say) if tenant else given as known:
            server.RequestHandlerClass = _handler(known, answer, say)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            say(f"listening on {url}" + ("" if known else " without a secret: nothing is verified"))
            stop.wait()
            server.shutdown()


def _bound(port: int) -> ThreadingHTTPServer:
    try:
        return ThreadingHTTPServer((_HOST, port), BaseHTTPRequestHandler)
    except OSError as error:
        raise OSError(f"{_HOST}:{port} cannot be bound: {error.strerror}") from None


@contextlib.contextmanager
def _registered(settings: Settings, tenant: str, url: str, say: Callable[[str], None]) -> Iterator[list[bytes]]:
    """Registers a webhook with the running server and gives its secret, and that of the tenant's callback URLs."""
    token = issuer(settings).issue(tenant=tenant, subject="webhooks listen", scopes=_SCOPES, ttl_s=24 * 3600)
    metadata = (("authorization", f"Bearer {token}"),)
    with grpc.insecure_channel(settings.grpc_target) as channel:
        stub = webhooks_pb2_grpc.WebhookServiceStub(channel)
        try:
            webhook = stub.CreateWebhook(webhooks_pb2.CreateWebhookRequest(url=url), metadata=metadata, timeout=10)
            callback = stub.GetCallbackSecret(webhooks_pb2.GetCallbackSecretRequest(), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            raise OperatorError(
                f"the server did not take the webhook: {error.details()} Is it running, and does its "
                f"CAMSERVE_WEBHOOK_ALLOW list {url.removeprefix('http://').strip('/').replace(':', '/32:')}?"
            ) from None
        try:
            say(f"registered as {webhook.webhook_id} of tenant {tenant}")
            yield [secret_bytes(webhook.secret), secret_bytes(callback.secret)]
        finally:
            with contextlib.suppress(grpc.RpcError):
                request = webhooks_pb2.DeleteWebhookRequest(webhook_id=webhook.webhook_id)
                stub.DeleteWebhook(request, metadata=metadata, timeout=10)


def _handler(secrets: list[bytes], answer: int, say: Callable[[str], None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            body = self.rfile.read(min(int(length), _MOST_BYTES)) if length.isdigit() else b""
            headers = {name.lower(): value for name, value in self.headers.items()}
            now = time.time()
            good = not secrets or any(is_authentic(secret, headers, body, now) for secret in secrets)
            verdict = "unverified" if not secrets else "verified" if good else "NOT AUTHENTIC"
            # Whoever reaches the port may send anything: of what is not authentic little is shown.
            shown = body if good else body[:_MOST_SHOWN_BYTES]
            say(_visible(f"{verdict} {headers.get('x-event-id', 'no id')} {shown.decode(errors='replace')}"))
            self.send_response(answer if good else 401)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing more: every event has its line."""

    return Handler


def _visible(line: str) -> str:
    """Returns the line with escapes for what a terminal would obey."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
