"""How many calls a tenant may have open, on a stack where that is two."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.images import star_png

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    running = start_stack(tmp_path_factory.mktemp("narrow"), tenant_open_calls=2, torch_threads=1, replica_count=1)
    yield running
    stop_stack(running)


@pytest.fixture
def api(narrow):
    with httpx.Client(base_url=narrow.edge_url, headers=narrow.headers(), timeout=60) as client:
        yield client


@contextmanager
def half_sent(stack, verb, path, **headers):
    """A request of which one byte is missing for as long as this lasts; gives what sends it and returns the answer."""
    address = urlsplit(stack.edge_url)
    with socket.create_connection((address.hostname, address.port), timeout=60) as connection:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        body = star_png()
        lines += f"content-type: image/png\r\ncontent-length: {len(body)}\r\n"
        connection.sendall(f"{verb} {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n".encode() + body[:-1])

        def end():
            connection.sendall(body[-1:])
            return connection.recv(65536).decode()

        yield end


def open_at_the_replica(stack, count):
    """Waits until so many calls of tenants are open."""
    metrics = f"http://127.0.0.1:{stack.metrics_port}/metrics"
    while f"camserve_calls_running {count}.0" not in httpx.get(metrics).text:
        pass


def test_one_call_too_many_is_refused_until_another_ends(narrow, api):
    bearer = api.headers["authorization"]
    with ExitStack() as calls:
        ends = [calls.enter_context(half_sent(narrow, "POST", "/v1/uploads", authorization=bearer)) for _ in range(2)]
        open_at_the_replica(narrow, 2)
        refused = api.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency.exceeded")
        assert refused.json()["error"]["details"] == {"limit": 2}
        assert refused.headers["retry-after"] == "1"
        other = narrow.headers(tenant="another")
        assert httpx.get(f"{narrow.edge_url}/v1/models", headers=other).status_code == 200
        assert httpx.get(f"{narrow.edge_url}/v1/health").status_code == 200
        assert all(" 201 " in end() for end in ends)
    assert api.get("/v1/models").status_code == 200


def test_what_comes_by_a_link_is_of_the_tenant_that_signed_it(narrow, api):
    asked = {"media_type": "image/png", "size_bytes": str(len(star_png()))}
    urls = [api.post("/v1/uploads:presign", json=asked).json()["upload_url"] for _ in range(3)]
    with ExitStack() as calls:
        links = [urlsplit(url) for url in urls]
        ends = [calls.enter_context(half_sent(narrow, "PUT", f"{link.path}?{link.query}")) for link in links[:2]]
        open_at_the_replica(narrow, 2)
        refused = httpx.put(urls[2], content=star_png(), headers={"content-type": "image/png"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency.exceeded")
        assert api.get("/v1/models").status_code == 429
        assert all(" 201 " in end() for end in ends)
    assert httpx.put(urls[2], content=star_png(), headers={"content-type": "image/png"}).status_code == 201
