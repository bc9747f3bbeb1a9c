"""Requests that two readers could read differently: none gets past the token, whatever another reader makes of it.

Some are two requests to Envoy, as they are in the standard; replicas cannot see it otherwise, because they get HTTP/2.
"""

from __future__ import annotations

import socket
from contextlib import suppress

import pytest
from tests.edge.conftest import Edge

HEAD = "POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {token}\r\n"
ANONYMOUS = HEAD.replace("authorization: Bearer {token}\r\n", "")
# What would be the second request; the first one's token is not its own.
HIDDEN = "GET /v1/models/hidden HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
CHUNK = f"{len(HIDDEN):x}\r\n{HIDDEN}\r\n0\r\n\r\n"

# Of an edge that waits for the rest of a body nothing more comes.
SILENCE_S = 0.5

AMBIGUOUS = {
    "length and chunks": f"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{CHUNK}",
    "chunks and length": f"transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n{HIDDEN}",
    "two lengths": f"content-length: 0\r\ncontent-length: {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "two lengths in one": f"content-length: 0, {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "a negative length": f"content-length: -1\r\n\r\n{HIDDEN}",
    "a length with a sign": f"content-length: +0\r\n\r\n{HIDDEN}",
    "a length in hex": f"content-length: 0x2\r\n\r\n{{}}{HIDDEN}",
    "a length of 2^64": f"content-length: 18446744073709551616\r\n\r\n{HIDDEN}",
    "a folded header": f"content-length: 2\r\nx-a: b\r\n content-length: 0\r\n\r\n{{}}{HIDDEN}",
    "a folded encoding": f"transfer-encoding:\r\n chunked\r\ncontent-length: 2\r\n\r\n{{}}{HIDDEN}",
    "a space before the colon": f"content-length : 2\r\n\r\n{{}}{HIDDEN}",
    "a tab before the colon": f"transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a space before a header": f" content-length: 2\r\n\r\n{{}}{HIDDEN}",
    "gzip, chunked": f"transfer-encoding: gzip, chunked\r\n\r\n{{}}{HIDDEN}",
    "chunked, gzip": f"transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n{HIDDEN}",
    "chunked twice": f"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{HIDDEN}",
    "an encoding that looks chunked": f"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a chunk of negative size": f"transfer-encoding: chunked\r\n\r\n-1\r\n\r\n{HIDDEN}",
    "a chunk size with 0x": f"transfer-encoding: chunked\r\n\r\n0x2\r\n{{}}\r\n0\r\n\r\n{HIDDEN}",
    "a chunk of 2^64": f"transfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{HIDDEN}",
    "a chunk longer than said": f"transfer-encoding: chunked\r\n\r\n2\r\n{{}}x\r\n0\r\n\r\n{HIDDEN}",
    "a line break without a return": f"content-length: 2\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    "a return in a value": f"x-a: b\rtransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n{{}}{HIDDEN}",
    "a zero in a value": f"x-a: b\0c\r\ncontent-length: 2\r\n\r\n{{}}{HIDDEN}",
    "upgrade to h2c": "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n"
    f"content-length: 2\r\n\r\n{{}}{HIDDEN}",
}


def answers(port: int, request: str, *, within_s: float = 10.0) -> list[int]:
    """The status of everything that is answered until the edge closes or waits for more."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=within_s) as connection:
        connection.sendall(request.encode("latin-1"))
        with suppress(ConnectionError, TimeoutError):
            while data := connection.recv(65536):
                received += data
    return [int(part.split(b" ", 1)[0]) for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_request_reaches_the_replica_once_or_never(edge: Edge, name: str) -> None:
    statuses = answers(edge.port, HEAD.format(token=edge.token()) + AMBIGUOUS[name], within_s=SILENCE_S)
    assert statuses.count(200) <= 1
    assert [call.path for call in edge.replica.received] in ([], ["/camserve.v1.InferenceService/Infer"])


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_request_gets_nothing_past_the_token(edge: Edge, name: str) -> None:
    statuses = answers(edge.port, ANONYMOUS + AMBIGUOUS[name], within_s=SILENCE_S)
    assert all(status >= 400 for status in statuses)
    assert not edge.replica.received


def test_a_pipelined_request_needs_a_token_of_its_own(edge: Edge) -> None:
    first = HEAD.format(token=edge.token()) + "content-length: 2\r\n\r\n{}"
    assert answers(edge.port, first + HIDDEN) == [200, 401]
    assert len(edge.replica.received) == 1


def test_chunk_extensions_hide_nothing(edge: Edge) -> None:
    head = HEAD.format(token=edge.token()) + "transfer-encoding: chunked\r\n\r\n"
    assert answers(edge.port, head + '2;x="\r\n{}\r\n0\r\n\r\n' + HIDDEN) in ([200, 401], [400])
    assert len(edge.replica.received) <= 1


@pytest.mark.parametrize(
    "target",
    [
        "http://x/v1/models",
        "http://x//v1/models",
        "http://x/v1/health/../models",
        "/v1/health;/../models",
        "/v1/%6dodels",
    ],
)
def test_another_form_of_a_path_needs_a_token_too(edge: Edge, target: str) -> None:
    statuses = answers(edge.port, f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert statuses == [401]
    assert not edge.replica.received


def test_connect_reaches_nothing(edge: Edge) -> None:
    statuses = answers(edge.port, f"CONNECT 127.0.0.1:{edge.replica.port} HTTP/1.1\r\nhost: x\r\n\r\n{HIDDEN}")
    assert all(status >= 400 for status in statuses)
    assert not edge.replica.received
