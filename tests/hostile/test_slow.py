"""Callers who send or read a byte a second, 200 at a time; make resilience has 1,000."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.conftest import Stack
from tests.hostile.conftest import EDGE, Beside, Target, target_of
from tests.hostile.frames import PREFACE, SETTINGS, frame, grpc, headers, rest

CONNECTIONS = 200
ATTACK_S = 4
BYTE_S = 1.0
# The edge's own limit for the headers of a request, and room for a busy machine.
HEADERS_WITHIN_S = 10 + 10
NO_WINDOW = frame(SETTINGS, 0, 0, b"\0\4" + bytes(4))


async def drip(port: int, begin: bytes, rest_of_it: bytes) -> None:
    """Sends what opens the connection, then a byte a second, as long as the attack lasts or the connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(begin)
        for byte in rest_of_it[:ATTACK_S]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(BYTE_S)
    except ConnectionError:
        pass
    finally:
        writer.close()


def slow_headers(target: Target) -> list[tuple[bytes, bytes]]:
    text = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
    whole = headers(1, rest() if target.is_edge else grpc())
    framed = (PREFACE + frame(SETTINGS, 0, 0) + whole[:9], whole[9:])
    return [(text[:5], text[5:]), framed] if target.is_edge else [(PREFACE[:4], PREFACE[4:]), framed]


def slow_bodies(target: Target) -> list[tuple[bytes, bytes]]:
    bearer = {"authorization": f"Bearer {target.token}"}
    text = f"POST /v1/infer?model=shapes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {target.token}\r\n"
    text += "content-type: image/png\r\ncontent-length: 100000\r\n\r\n"
    fields = grpc("/camserve.v1.UploadService/UploadImage", **bearer)
    framed = (
        PREFACE + frame(SETTINGS, 0, 0) + headers(1, fields, end=False) + frame(0, 0, 1, b"\0\0\0\1\0")[:9],
        b"\0\0\0\1\0",
    )
    return [(text.encode(), bytes(100)), framed] if target.is_edge else [framed]


def slow_readers(target: Target) -> list[tuple[bytes, bytes]]:
    """They ask and let nothing be sent to them."""
    fields = rest() if target.is_edge else grpc()
    asked = b"".join(headers(1 + 2 * number, fields) for number in range(20))
    return [(PREFACE + NO_WINDOW + asked, bytes(9))]


@pytest.mark.parametrize("shape", [slow_headers, slow_bodies, slow_readers])
async def test_beside_slow_callers_the_others_are_answered(target: Target, beside: Beside[list], shape) -> None:
    pairs = shape(target)
    attack = asyncio.gather(*(drip(target.port, *pairs[number % len(pairs)]) for number in range(CONNECTIONS)))
    await beside(attack)


async def test_the_edge_waits_for_headers_ten_seconds(hostile_stack: Stack) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", target_of(hostile_stack, EDGE).port)
    try:
        writer.write(b"GET /v1/health HTTP/1.1\r\nhost")
        started = time.monotonic()
        async with asyncio.timeout(HEADERS_WITHIN_S):
            received = await reader.read()
        assert time.monotonic() - started > 5
        assert received.startswith(b"HTTP/1.1 504 ")
    finally:
        writer.close()
