"""Encryption with a key of the key management service: what is asked of a bucket, since no S3 server here has one."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from tests.clock import FakeClock

from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.objects import new_object_id
from camserve_server.stores.s3_objects import S3Links, S3Objects, S3Settings
from camserve_server.stores.sigv4 import Credentials

ASKED = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "arn:aws:kms:eu-central-1:1:key/2",
}
BEGUN = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
ENDED = b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'


class Bucket(BaseHTTPRequestHandler):
    """Keeps nothing but which requests make an object, and with which headers."""

    making: list[dict[str, str]]

    def do_PUT(self) -> None:
        if "partNumber" not in self.path:
            self._note()
        self._answer(b"")

    def do_POST(self) -> None:
        if "?uploads" in self.path:
            self._note()
            self._answer(BEGUN)
        else:
            self._answer(ENDED)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Says nothing."""

    def _note(self) -> None:
        self.making.append({name.lower(): value for name, value in self.headers.items()})

    def _answer(self, body: bytes) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("etag", '"e"')
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def making() -> list[dict[str, str]]:
    return []


@pytest.fixture
def settings(making: list[dict[str, str]]) -> Iterator[S3Settings]:
    kind = type("Recording", (Bucket,), {"making": making, "protocol_version": "HTTP/1.1"})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield S3Settings(
            bucket="pictures",
            prefix="p",
            endpoint=f"http://127.0.0.1:{server.server_port}",
            region="eu-central-1",
            credentials=Credentials("id", "secret"),
            encryption=ASKED["x-amz-server-side-encryption"],
            kms_key_id=ASKED["x-amz-server-side-encryption-aws-kms-key-id"],
        )
        server.shutdown()


@pytest.mark.parametrize("size_bytes", [10, 20_000_000], ids=["whole", "in parts"])
async def test_objects_are_encrypted_with_the_key_of_the_settings(settings, making, size_bytes):
    store = S3Objects(settings, budget=ByteBudget(64 << 20), clock=FakeClock())
    draft = await store.draft("acme", content_type="image/png", expires_at=2e9)
    await draft.write(bytes(size_bytes))
    await draft.commit()
    (headers,) = making
    assert ASKED.items() <= headers.items()


def test_links_bind_whoever_sends_the_bytes_to_that_key(settings):
    links = S3Links(settings, "https://pictures.example", Credentials("id", "secret"), clock=FakeClock())
    url, bound = links.upload(
        "acme", new_object_id(2e9), {"Content-Type": "image/png"}, keep_until=2e9, expires_at=1.9e9
    )
    assert ASKED.items() <= bound.items()
    assert all(name in url for name in ASKED)
