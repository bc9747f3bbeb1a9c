"""HTTP/2 frame by frame, legal or not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 0x1, 0x1, 0x4, 0x8

Fields = Sequence[tuple[str | bytes, str | bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def block(fields: Fields) -> bytes:
    """Every field as a literal that changes no table, so that a block fits any place of a connection."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields)


def _text(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    length = len(data)
    if length < 127:
        return bytes([length]) + data
    head, length = b"\x7f", length - 127
    while length >= 128:
        head += bytes([length % 128 + 128])
        length //= 128
    return head + bytes([length]) + data


def headers(stream: int, fields: Fields, *, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block(fields))


def rest(path: str = "/v1/health", method: str = "GET", **more: str) -> list[tuple[str, str]]:
    fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "x")]
    return fields + [(name.replace("_", "-"), value) for name, value in more.items()]


def grpc(path: str = "/camserve.v1.HealthService/GetHealth", **more: str) -> list[tuple[str, str]]:
    return rest(path, "POST", content_type="application/grpc", te="trailers", **more)


def message(data: bytes = b"", *, compressed: bool = False) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


@dataclass(frozen=True)
class Frame:
    """A frame as it was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    def says_end(self, stream: int) -> bool:
        """Whether the peer ends the stream with an error, or the connection."""
        return self.kind == GOAWAY or (self.kind == RST_STREAM and self.stream == stream)


class Connection:
    """One connection on which the test decides about every byte."""

    def __init__(self, port: int, *, preface: bytes = PREFACE + frame(SETTINGS, 0, 0), within_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=within_s)
        self._received = b""
        self._decoder = Decoder(max_header_list_size=1 << 20)
        self.send(preface)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, *pieces: bytes) -> None:
        self._socket.sendall(b"".join(pieces))

    def sent_before_the_end(self, pieces: Iterator[bytes]) -> int:
        """Sends until the peer ends the connection or nothing is left; returns how many pieces it took."""
        count = 0
        try:
            for piece in pieces:
                self._socket.sendall(piece)
                count += 1
        except OSError:  # closed by the peer, or it reads no more
            pass
        return count

    def frames(self) -> Iterator[Frame]:
        """Yields what comes until the peer closes; acknowledges settings and pings as a client must."""
        while True:
            while len(self._received) < 9 or len(self._received) < 9 + int.from_bytes(self._received[:3], "big"):
                try:
                    data = self._socket.recv(65536)
                except ConnectionError:
                    return
                if not data:
                    return
                self._received += data
            end = 9 + int.from_bytes(self._received[:3], "big")
            kind, flags, stream = struct.unpack(">BBI", self._received[3:9])
            payload, self._received = self._received[9:end], self._received[end:]
            if kind in (SETTINGS, PING) and not flags & ACK:
                try:
                    self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
                except OSError:
                    return
            yield Frame(kind, flags, stream & 0x7FFFFFFF, payload)

    def fields(self, received: Frame) -> dict[str, str]:
        """The fields of a HEADERS frame."""
        return dict(self._decoder.decode(received.payload))

    def ends(self, stream: int = 1) -> bool:
        """Whether the peer ends the stream with an error, or the connection, rather than answers it."""
        for received in self.frames():
            if received.says_end(stream):
                return True
            if received.kind == HEADERS and received.stream == stream:
                fields = self.fields(received)
                refused = fields.get(":status", "200") >= "400" or fields.get("grpc-status", "0") != "0"
                if refused or received.flags & END_STREAM:
                    return refused
        return True


def encoder() -> Encoder:
    return Encoder()
