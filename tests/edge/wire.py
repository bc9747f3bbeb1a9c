"""Bytes on a socket, and what every error must look like."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass

import httpx

from camserve_server.base.errors import CATALOGUE, Reason


@dataclass
class Raw:
    """A response as it came over the wire, until the server closed."""

    status: int
    headers: dict[str, str]
    body: bytes


def exchange(port: int, request: bytes, *, until_close: bool = False, within_s: float = 10.0) -> Raw:
    """Sends `request` as it is and returns the response once its length is there.

    `until_close` reads on to the end, so that nothing which follows is missed; the server must close in time.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as connection:
        connection.sendall(request)
        received = b""
        while until_close or not _complete(received):
            data = connection.recv(65536)
            if not data:
                break
            received += data
    return _parse(received)


def _complete(received: bytes) -> bool:
    response = _parse(received)
    return b"\r\n\r\n" in received and len(response.body) >= int(response.headers.get("content-length", 1 << 62))


def _parse(received: bytes) -> Raw:
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Raw(0, {}, b"")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Raw(int(status.split()[1]), headers, body)


def check_error(response: httpx.Response | Raw, reason: Reason) -> None:
    """Fails unless the response is exactly what the catalogue says, with one id in header and body."""
    entry = CATALOGUE[reason]
    status = response.status_code if isinstance(response, httpx.Response) else response.status
    body = response.content if isinstance(response, httpx.Response) else response.body
    assert status == entry.status, body
    assert response.headers["content-type"] == "application/json"
    assert response.headers["request-id"]
    assert json.loads(body) == {
        "error": {
            "type": entry.type,
            "code": reason.value,
            "message": entry.message,
            "status": entry.status,
            "request_id": response.headers["request-id"],
        }
    }
    if entry.status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    if entry.status == 401:
        assert response.headers["www-authenticate"].startswith('Bearer realm="camserve"')
