"""Headers without measure, and frames that cost their sender nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx
import pytest
from hpack import Encoder
from tests.conftest import Stack
from tests.hostile.conftest import Beside, Memory, Target
from tests.hostile.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    HEADERS,
    PING,
    PRIORITY,
    SETTINGS,
    Connection,
    Fields,
    block,
    frame,
    grpc,
    headers,
    message,
    rest,
)

MOST_GROWTH_MB = 150
# Each of these floods would be this large if nobody ended it; no request may bring more than 64 KiB of headers.
FLOOD_BYTES = 64 << 20
HEADERS_ARE_REFUSED_BY = 2 << 20


def fields_of(target: Target) -> Fields:
    return rest() if target.is_edge else grpc()


def continuations(target: Target) -> Iterator[bytes]:
    yield frame(HEADERS, 1, 1, block(fields_of(target)))
    yield from [frame(CONTINUATION, 0, 1, block([("x-a", "y" * 16_000)]))] * (FLOOD_BYTES // 16_000)


def empty_continuations(target: Target) -> Iterator[bytes]:
    yield frame(HEADERS, 1, 1, block(fields_of(target)))
    yield from [frame(CONTINUATION, 0, 1) * 1000] * 200


def indexed_headers(target: Target) -> Iterator[bytes]:
    """One byte each, for 4,000 bytes of the table (an HPACK bomb)."""
    for number in range(200):
        begin = Encoder().encode([*fields_of(target), ("x-a", "y" * 3_900)])
        yield frame(HEADERS, END_HEADERS | 1, 1 + 2 * number, begin + b"\xbe" * 12_000)


def long_headers(target: Target) -> Iterator[bytes]:
    """Whole requests with 150 KB of headers in one value."""
    for number in range(400):
        stream = 1 + 2 * number
        value = [("x-a", "y" * 15_000)]
        yield frame(HEADERS, 1, stream, block(fields_of(target)))
        yield frame(CONTINUATION, 0, stream, block(value)) * 9 + frame(CONTINUATION, END_HEADERS, stream, block(value))


def many_headers(target: Target) -> Iterator[bytes]:
    names = [(f"x-{number}", "") for number in range(1_500)]
    for number in range(400):
        yield headers(1 + 2 * number, [*fields_of(target), *names])


def long_trailers(target: Target) -> Iterator[bytes]:
    for number in range(200):
        stream = 1 + 2 * number
        yield headers(stream, fields_of(target), end=False) + frame(DATA, 0, stream, message())
        yield frame(HEADERS, 1, stream, b"")
        yield frame(CONTINUATION, 0, stream, block([("x-a", "y" * 15_000)])) * 20 + frame(
            CONTINUATION, END_HEADERS, stream
        )


def pings(target: Target) -> Iterator[bytes]:
    yield from [frame(PING, 0, 0, bytes(8)) * 100] * 2000


def settings(target: Target) -> Iterator[bytes]:
    yield from [frame(SETTINGS, 0, 0) * 100] * 2000


def empty_data(target: Target) -> Iterator[bytes]:
    yield headers(1, fields_of(target), end=False)
    yield from [frame(DATA, 0, 1) * 100] * 2000


def priorities(target: Target) -> Iterator[bytes]:
    yield from [b"".join(frame(PRIORITY, 0, 1 + 2 * number, bytes(5)) for number in range(100))] * 2000


FLOODS = [
    continuations,
    empty_continuations,
    indexed_headers,
    long_headers,
    many_headers,
    long_trailers,
    pings,
    settings,
    empty_data,
    priorities,
]


@pytest.mark.parametrize("flood", FLOODS)
async def test_beside_a_flood_the_others_are_answered(
    target: Target, beside: Beside[int], memory: Memory, flood: Callable[[Target], Iterator[bytes]]
) -> None:
    with Connection(target.port, within_s=30) as connection:
        await beside(asyncio.to_thread(connection.sent_before_the_end, flood(target)))
    if target.is_edge or flood is not indexed_headers:  # gRPC's own server keeps what it refused: docs/reliability.md
        assert memory.grown_mb < MOST_GROWTH_MB


@pytest.mark.parametrize("flood", [continuations, indexed_headers, pings, settings, empty_data, priorities])
def test_the_edge_ends_a_flood(hostile_stack: Stack, flood: Callable[[Target], Iterator[bytes]]) -> None:
    port = int(hostile_stack.edge_url.rpartition(":")[2])
    pieces = list(flood(Target("edge", port, "")))
    with Connection(port, within_s=30) as connection:
        assert connection.sent_before_the_end(iter(pieces)) < len(pieces) or connection.ends()


def test_endless_headers_are_ended_early(target: Target) -> None:
    piece = frame(CONTINUATION, 0, 1, block([("x-a", "y" * 16_000)]))
    with Connection(target.port, within_s=30) as connection:
        connection.send(frame(HEADERS, 1, 1, block(fields_of(target))))
        taken = connection.sent_before_the_end(iter([piece] * (HEADERS_ARE_REFUSED_BY // len(piece))))
        assert taken < HEADERS_ARE_REFUSED_BY // len(piece) or connection.ends()


def test_too_many_and_too_long_headers_are_refused_over_http2(hostile_stack: Stack) -> None:
    with httpx.Client(base_url=hostile_stack.edge_url, http1=False, http2=True, trust_env=False) as client:
        for extra in ({"x-a": "y" * 40_000}, {f"x-{number}": "y" for number in range(150)}):
            with suppress(httpx.RemoteProtocolError):  # the codec ends the connection or the stream, without an answer
                assert client.get("/v1/health", headers=extra).status_code == 431
        assert client.get("/v1/health").status_code == 200
