"""Frames that HTTP/2 does not allow (RFC 9113, RFC 7541): the sender loses its connection, and nobody else anything."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from tests.conftest import Stack
from tests.hostile.conftest import EDGE, Target, answered, target_of
from tests.hostile.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    Fields,
    block,
    frame,
    grpc,
    headers,
    reset,
    rest,
)

WHOLE = END_HEADERS | END_STREAM
MOST = 0x7FFFFFFF
TRAILERS = [("x-a", "b")]


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, struct.pack(">HI", name, value))


def after_headers(*frames: bytes) -> Callable[[Fields], bytes]:
    return lambda fields: headers(1, fields, end=False) + b"".join(frames)


def with_block(extra: bytes) -> Callable[[Fields], bytes]:
    return lambda fields: frame(HEADERS, WHOLE, 1, block(fields) + extra)


ILLEGAL: dict[str, bytes | Callable[[Fields], bytes]] = {
    "data on the connection": frame(DATA, 0, 0, b"x"),
    "data on an idle stream": frame(DATA, END_STREAM, 1, b"x"),
    "data after the end": lambda fields: headers(1, fields) + frame(DATA, END_STREAM, 1, b"x"),
    "headers on the connection": lambda fields: frame(HEADERS, WHOLE, 0, block(fields)),
    "headers on an even stream": lambda fields: frame(HEADERS, WHOLE, 2, block(fields)),
    "headers after the end": lambda fields: headers(1, fields) * 2,
    "headers as trailers without an end": lambda fields: headers(1, fields, end=False) * 2,
    "a pseudo header among trailers": lambda fields: (
        headers(1, fields, end=False) + headers(1, [*TRAILERS, (":path", "/v1/models")])
    ),
    "more data than its length": lambda fields: (
        headers(1, [*fields, ("content-length", "1")], end=False) + frame(DATA, END_STREAM, 1, b"xyz")
    ),
    "more pieces of data than its length": lambda fields: (
        headers(1, [*fields, ("content-length", "1")], end=False)
        + frame(DATA, 0, 1, b"x")
        + frame(DATA, END_STREAM, 1, b"yz")
    ),
    "continuation of nothing": lambda fields: frame(CONTINUATION, END_HEADERS, 1, block(fields)),
    "headers interrupted by a ping": lambda fields: frame(HEADERS, 1, 1, block(fields)) + frame(PING, 0, 0, bytes(8)),
    "headers interrupted by others": lambda fields: frame(HEADERS, 1, 1, block(fields)) + headers(3, fields),
    "push promise of a client": lambda fields: frame(PUSH_PROMISE, END_HEADERS, 1, u32(2) + block(fields)),
    "settings of 5 bytes": frame(SETTINGS, 0, 0, b"12345"),
    "settings on a stream": frame(SETTINGS, 0, 1),
    "settings acknowledged with more": frame(SETTINGS, ACK, 0, b"123456"),
    "push neither on nor off": setting(2, 2),
    "window past its limit": setting(4, MOST + 1),
    "frames smaller than allowed": setting(5, 10),
    "ping of 7 bytes": frame(PING, 0, 0, b"1234567"),
    "ping on a stream": frame(PING, 0, 1, b"12345678"),
    "window update of nothing": frame(WINDOW_UPDATE, 0, 0, u32(0)),
    "window update of nothing on a stream": after_headers(frame(WINDOW_UPDATE, 0, 1, u32(0))),
    "window update of 3 bytes": frame(WINDOW_UPDATE, 0, 0, b"123"),
    "window overflow": frame(WINDOW_UPDATE, 0, 0, u32(MOST)) * 2,
    "window overflow on a stream": after_headers(frame(WINDOW_UPDATE, 0, 1, u32(MOST)) * 2),
    "reset of an idle stream": reset(1),
    "reset of the connection": reset(0),
    "reset of 3 bytes": after_headers(frame(RST_STREAM, 0, 1, b"123")),
    "goaway on a stream": frame(GOAWAY, 0, 1, bytes(8)),
    "goaway of 4 bytes": frame(GOAWAY, 0, 0, bytes(4)),
    "priority of 4 bytes": frame(PRIORITY, 0, 1, u32(3)),
    "a frame larger than allowed": after_headers(frame(DATA, 0, 1, bytes(70_000))),
    "a frame that claims 16 MB": after_headers(b"\xff\xff\xff" + struct.pack(">BBI", DATA, 0, 1)),
    "more padding than payload": after_headers(frame(DATA, PADDED, 1, b"\xffxx")),
    "more padding than headers": lambda fields: frame(HEADERS, PADDED | WHOLE, 1, b"\xff" + block(fields)),
    "hpack: index 0": with_block(b"\x80"),
    "hpack: an index that is not there": with_block(b"\xff\xa0\x1e"),
    "hpack: a table larger than allowed": lambda fields: frame(
        HEADERS, WHOLE, 1, b"\x3f\xff\xff\xff\x07" + block(fields)
    ),
    "hpack: an endless number": with_block(b"\xff" * 20 + b"\x7f"),
    "hpack: a text that is cut off": with_block(b"\0\x20ab"),
    "huffman: the end within a text": with_block(b"\0\x84\xff\xff\xff\xff\x01a"),
}

EXTRA: dict[str, Fields] = {
    "an upper-case name": [("X-Upper", "a")],
    "connection": [("connection", "close")],
    "keep-alive": [("keep-alive", "1")],
    "transfer-encoding": [("transfer-encoding", "chunked")],
    "upgrade": [("upgrade", "h2c")],
    "another te": [("te", "gzip")],
    "an unknown pseudo header": [(":foo", "x")],
    "a pseudo header of responses": [(":status", "200")],
    "a second method": [(":method", "GET")],
    "a pseudo header at the end": [(":path", "/v1/health")],
    "a value that begins a header": [("x-a", "b\r\nauthorization: c")],
    "a line break in a value": [("x-a", "b\nc")],
    "a zero in a value": [("x-a", "b\0c")],
    "a line break in a name": [("x\r\na", "b")],
    "a space in a name": [("x a", "b")],
    "a colon in a name": [("x:a", "b")],
    "an empty name": [("", "b")],
    "a length that is not kept": [("content-length", "5")],
    "a negative length": [("content-length", "-1")],
    "two lengths": [("content-length", "0"), ("content-length", "1")],
}

CHANGED: dict[str, tuple[str, str | None]] = {
    "no method": (":method", None),
    "no scheme": (":scheme", None),
    "no path": (":path", None),
    "an empty path": (":path", ""),
    "a request in the path": (":path", "/v1/health HTTP/1.1\r\nhost: y\r\n\r\nGET /v1/models"),
    "a request in the method": (":method", "GET /v1/health HTTP/1.1\r\n\r\nGET"),
    "a header in the authority": (":authority", "x\r\nauthorization: y"),
}


def changed(fields: Fields, name: str, value: str | None) -> Fields:
    kept = [(key, value if key == name else old) for key, old in fields if key != name or value is not None]
    return [(key, text) for key, text in kept if text is not None]


def shapes(fields: Fields) -> dict[str, bytes]:
    return {
        **{name: shape(fields) if callable(shape) else shape for name, shape in ILLEGAL.items()},
        **{name: headers(1, [*fields, *extra]) for name, extra in EXTRA.items()},
        **{name: headers(1, changed(fields, *change)) for name, change in CHANGED.items()},
    }


EDGE_SHAPES, GRPC_SHAPES = shapes(rest()), shapes(grpc())


@pytest.mark.parametrize("name", EDGE_SHAPES)
async def test_the_edge_ends_a_connection_that_breaks_the_protocol(hostile_stack: Stack, name: str) -> None:
    with Connection(target_of(hostile_stack, EDGE).port) as connection:
        connection.send(EDGE_SHAPES[name])
        assert connection.ends()


async def test_after_illegal_frames_the_others_are_answered(hostile_stack: Stack, target: Target) -> None:
    # gRPC's own server overlooks some of them, as the protocol forbids; what counts is that nobody is harmed.
    attacked = EDGE_SHAPES if target.is_edge else GRPC_SHAPES
    connections = [Connection(target.port) for _ in attacked]
    for connection, data in zip(connections, attacked.values(), strict=True):
        connection.sent_before_the_end(iter([data]))
    await answered(hostile_stack)
    for connection in connections:
        with connection:
            pass
