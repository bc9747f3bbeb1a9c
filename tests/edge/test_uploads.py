"""Uploads that are not whole, through the real server."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Stack

MULTIPART = b'--b\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\nstart of the image'


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("image/png", b"start of the image"), ("multipart/form-data; boundary=b", MULTIPART)],
    ids=["raw", "multipart"],
)
def test_an_upload_that_breaks_off_is_never_answered_as_whole(stack: Stack, media_type: str, body: bytes) -> None:
    port = urlsplit(stack.edge_url).port
    head = f"POST /v1/infer?model=shapes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.token()}\r\n"
    head += f"content-type: {media_type}\r\ncontent-length: 1000\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    assert b" 200 " not in answer.partition(b"\r\n")[0]


def test_a_multipart_body_without_its_closing_boundary_is_refused(stack: Stack) -> None:
    headers = stack.headers() | {"content-type": "multipart/form-data; boundary=b"}
    response = httpx.post(f"{stack.edge_url}/v1/infer?model=shapes", content=MULTIPART, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "param.invalid")


def test_a_raw_upload_without_length_or_digest_is_411(stack: Stack) -> None:
    headers = stack.headers() | {"content-type": "image/png", "x-camserve-content-length": "5"}
    response = httpx.post(f"{stack.edge_url}/v1/infer?model=shapes", content=iter([b"12345"]), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (411, "upload.length_required")


def test_a_wrong_length_is_refused_by_the_edge_itself(stack: Stack) -> None:
    # More bytes than declared would be read as the next request; the connection must end instead.
    port = urlsplit(stack.edge_url).port
    head = f"POST /v1/infer?model=shapes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {stack.token()}\r\n"
    request = f"{head}content-type: image/png\r\ncontent-length: 5\r\n\r\n12345GARBAGE\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
    statuses = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert statuses[-1].startswith(b"HTTP/1.1 400")
    assert json.loads(answer[answer.rindex(b'{"error"') :])["error"]["code"] == "param.invalid"
