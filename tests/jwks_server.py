"""An issuer that publishes its keys on this machine."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://partner.test"


@dataclass
class JwksServer:
    """The issuer's key and what its address answers; `asked` counts."""

    url: str
    kid: str = "p1"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    asked: int = 0

    def rotate(self, kid: str) -> None:
        self.kid, self.key = kid, ec.generate_private_key(ec.SECP256R1())

    def document(self) -> bytes:
        public = jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        return json.dumps({"keys": [public | {"kid": self.kid, "use": "sig", "alg": "ES256"}]}).encode()

    def token(self, audience: str = "camserve", **changes: Any) -> str:
        claims = {"iss": ISSUER, "aud": audience, "sub": "s", "tenant": "acme", "exp": int(time.time()) + 600}
        claims["scope"] = "inference.read"
        return jwt.encode(claims | changes, self.key, algorithm="ES256", headers={"kid": self.kid})


@contextmanager
def jwks_server(certificate: tuple[Path, Path] | None = None) -> Iterator[JwksServer]:
    """Serves http at 127.0.0.1, or https at localhost with a certificate and its key."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.asked += 1
            body = seen.document() if seen.body is None else seen.body
            self.send_response(seen.status)
            for name, value in (
                {"content-type": "application/json", "content-length": len(body)} | seen.headers
            ).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # callers hang up on purpose
    seen = JwksServer(f"http://127.0.0.1:{server.server_port}/jwks")
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        seen.url = f"https://localhost:{server.server_port}/jwks?v=1"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
