"""Tink's AES-GCM-HKDF streaming encryption (AES256_GCM_HKDF_1MB): written as a stream, read at any range.

A stream is a header (its length, a salt, a nonce prefix) and segments of 1 MiB, header included, each with
its own tag. HKDF-SHA256 over key, salt and associated data gives the stream's key; a segment's nonce is the
prefix, the segment's number and whether it is the last one, so moved, missing and foreign segments fail.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SEGMENT_BYTES = 1 << 20
STREAM_HEADER_BYTES = 40
_SALT_BYTES = 32
_PREFIX_BYTES = 7
_TAG_BYTES = 16
_FIRST_PLAIN_BYTES = SEGMENT_BYTES - STREAM_HEADER_BYTES - _TAG_BYTES
_PLAIN_BYTES = SEGMENT_BYTES - _TAG_BYTES


class DamagedError(Exception):
    """A stream that was altered, cut short or extended, or a wrong key or associated data."""


def encrypted_bytes(plain_bytes: int) -> int:
    """Returns the length of the stream, header included, that `plain_bytes` bytes become."""
    beyond_first = max(plain_bytes - _FIRST_PLAIN_BYTES, 0)
    segments = 1 + -(-beyond_first // _PLAIN_BYTES)
    return STREAM_HEADER_BYTES + plain_bytes + segments * _TAG_BYTES


def _plain_bytes(stream_bytes: int) -> int:
    segments = -(-stream_bytes // SEGMENT_BYTES)
    plain_bytes = stream_bytes - STREAM_HEADER_BYTES - segments * _TAG_BYTES
    if plain_bytes < 0 or encrypted_bytes(plain_bytes) != stream_bytes:
        raise DamagedError("no stream has this length")
    return plain_bytes


class _Cipher:
    def __init__(self, key: bytes, salt: bytes, prefix: bytes, associated: bytes) -> None:
        if len(key) != 32:
            raise ValueError("the key must have 32 bytes")
        hkdf = HKDF(algorithm=SHA256(), length=32, salt=salt, info=associated)
        self._aead = AESGCM(hkdf.derive(key))
        self._prefix = prefix

    def encrypt(self, index: int, last: bool, plain: bytes | bytearray | memoryview) -> bytes:
        return self._aead.encrypt(self._nonce(index, last), plain, None)

    def decrypt(self, index: int, last: bool, segment: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(index, last), segment, None)
        except InvalidTag as error:
            raise DamagedError(f"segment {index} does not authenticate") from error

    def _nonce(self, index: int, last: bool) -> bytes:
        return self._prefix + struct.pack(">IB", index, last)


class StreamWriter:
    """Encrypts to `sink`, which is called with the header and then with each segment in order.

    `close` writes the last segment; a stream that is not closed does not open. At most one segment is held. After the
    sink failed nobody knows what it has, and another segment under the number of that one would give both away: every
    later call raises RuntimeError.
    """

    def __init__(self, sink: Callable[[bytes], object], key: bytes, associated: bytes) -> None:
        salt, prefix = os.urandom(_SALT_BYTES), os.urandom(_PREFIX_BYTES)
        self._cipher = _Cipher(key, salt, prefix, associated)
        self._sink = sink
        self._index = 0
        self._held = bytearray()
        self._held_bytes = 0
        self._broken = False
        sink(bytes([STREAM_HEADER_BYTES]) + salt + prefix)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Adds `data`, writing each segment once it is known that another one follows."""
        self._check()
        rest = memoryview(data).cast("B")
        while self._held_bytes + len(rest) > self._room():
            taken = self._room() - self._held_bytes
            if self._held_bytes:
                self._hold(rest[:taken])
                self._emit_held()
            else:
                self._emit(rest[:taken])
            rest = rest[taken:]
        self._hold(rest)

    def close(self) -> None:
        """Writes the last segment."""
        self._emit_held(last=True)
        self._held = bytearray()

    def _hold(self, part: memoryview) -> None:
        """Copies bytes to the end of what is held, whose memory serves one segment after the other."""
        end = self._held_bytes + len(part)
        if end > len(self._held):
            del self._held[self._held_bytes :]
            self._held += part
        else:
            # Given to the bytearray itself the part would be copied first.
            with memoryview(self._held) as held:
                held[self._held_bytes : end] = part
        self._held_bytes = end

    def _emit_held(self, *, last: bool = False) -> None:
        with memoryview(self._held) as held, held[: self._held_bytes] as plain:
            self._emit(plain, last=last)
        self._held_bytes = 0

    def _check(self) -> None:
        if self._broken:
            raise RuntimeError("the stream broke off")

    def _room(self) -> int:
        return _PLAIN_BYTES if self._index else _FIRST_PLAIN_BYTES

    def _emit(self, plain: bytearray | memoryview, *, last: bool = False) -> None:
        self._check()
        self._broken = True
        self._sink(self._cipher.encrypt(self._index, last, plain))
        self._index += 1
        self._broken = last


class RangeReader:
    """Decrypts any range of a stream and only the segments that the range touches.

    `read_at(offset, length)` returns up to `length` bytes of the stream. Nothing unauthenticated is returned:
    every method raises DamagedError instead. An empty range authenticates nothing.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], stream_bytes: int, key: bytes, associated: bytes) -> None:
        self.size_bytes = _plain_bytes(stream_bytes)
        header = read_at(0, STREAM_HEADER_BYTES)
        if len(header) != STREAM_HEADER_BYTES or header[0] != STREAM_HEADER_BYTES:
            raise DamagedError("the header is malformed")
        self._cipher = _Cipher(key, header[1 : 1 + _SALT_BYTES], header[1 + _SALT_BYTES :], associated)
        self._read_at = read_at
        self._stream_bytes = stream_bytes
        self._last = -(-stream_bytes // SEGMENT_BYTES) - 1

    def chunk(self, start: int, end: int) -> bytes:
        """Returns the bytes from `start` up to `end` or to the end of the segment of `start`."""
        index, first = self._locate(start)
        return self._segment(index)[start - first : end - first]

    def chunks(self, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes of the range [start, end) in pieces of at most one segment."""
        while start < end:
            piece = self.chunk(start, end)
            yield piece
            start += len(piece)

    def verify(self) -> None:
        """Authenticates every segment, which is the only check that an empty stream has."""
        for index in range(self._last + 1):
            self._segment(index)

    def _locate(self, offset: int) -> tuple[int, int]:
        if not 0 <= offset < self.size_bytes:
            raise ValueError("the offset is outside the stream")
        if offset < _FIRST_PLAIN_BYTES:
            return 0, 0
        index = (offset - _FIRST_PLAIN_BYTES) // _PLAIN_BYTES + 1
        return index, _FIRST_PLAIN_BYTES + (index - 1) * _PLAIN_BYTES

    def _segment(self, index: int) -> bytes:
        begin = index * SEGMENT_BYTES if index else STREAM_HEADER_BYTES
        length = min((index + 1) * SEGMENT_BYTES, self._stream_bytes) - begin
        segment = self._read_at(begin, length)
        if len(segment) != length:
            raise DamagedError(f"segment {index} is cut short")
        return self._cipher.decrypt(index, index == self._last, segment)
