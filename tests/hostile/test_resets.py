"""Streams begun to be reset: by the client (CVE-2023-44487), or by what makes the server do it (CVE-2025-8671)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator

import pytest
from tests.hostile.conftest import Beside, Memory, Target
from tests.hostile.frames import (
    DATA,
    END_STREAM,
    PRIORITY,
    WINDOW_UPDATE,
    Connection,
    frame,
    grpc,
    headers,
    reset,
    rest,
)

STREAMS = 5_000
MOST_GROWTH_MB = 150

MAKES_A_RESET: dict[str, Callable[[int], bytes]] = {
    "window of nothing": lambda stream: frame(WINDOW_UPDATE, 0, stream, bytes(4)),
    "window overflow": lambda stream: frame(WINDOW_UPDATE, 0, stream, b"\x7f\xff\xff\xff"),
    "data after the end": lambda stream: frame(DATA, END_STREAM, stream) + frame(DATA, END_STREAM, stream, b"x"),
    "its own parent": lambda stream: frame(PRIORITY, 0, stream, struct.pack(">IB", stream, 0)),
}


def streams(target: Target, then: Callable[[int], bytes]) -> Iterator[bytes]:
    bearer = {"authorization": f"Bearer {target.token}"}
    fields = rest("/v1/models", **bearer) if target.is_edge else grpc("/camserve.v1.InferenceService/Infer", **bearer)
    for number in range(STREAMS):
        stream = 1 + 2 * number
        yield headers(stream, fields, end=False) + then(stream)


async def test_streams_reset_by_the_client_harm_nobody(target: Target, beside: Beside[int], memory: Memory) -> None:
    with Connection(target.port, within_s=30) as connection:
        await beside(asyncio.to_thread(connection.sent_before_the_end, streams(target, reset)))
        if target.is_edge:
            assert connection.ends()
    assert memory.grown_mb < MOST_GROWTH_MB


@pytest.mark.parametrize("then", MAKES_A_RESET.values(), ids=MAKES_A_RESET)
async def test_streams_that_make_the_server_reset_them_harm_nobody(
    target: Target, beside: Beside[int], memory: Memory, then: Callable[[int], bytes]
) -> None:
    with Connection(target.port, within_s=30) as connection:
        await beside(asyncio.to_thread(connection.sent_before_the_end, streams(target, then)))
    assert memory.grown_mb < MOST_GROWTH_MB
