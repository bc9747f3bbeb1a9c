"""The encrypted stream: Tink's format in both directions, ranges, and whatever somebody does to the bytes."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable
from functools import cache

import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import cleartext_keyset_handle, streaming_aead
from tink.proto import aes_gcm_hkdf_streaming_pb2, common_pb2, tink_pb2

from camserve_server.stores.aead import (
    SEGMENT_BYTES,
    STREAM_HEADER_BYTES,
    DamagedError,
    RangeReader,
    StreamWriter,
    encrypted_bytes,
)

KEY = bytes(range(32))
AAD = b"tenant and object"
FIRST = SEGMENT_BYTES - STREAM_HEADER_BYTES - 16
NEXT = SEGMENT_BYTES - 16
SIZES = [
    0,
    1,
    FIRST - 1,
    FIRST,
    FIRST + 1,
    FIRST + NEXT - 1,
    FIRST + NEXT,
    FIRST + NEXT + 1,
    SEGMENT_BYTES,
    5_000_000,
]


def plain(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def encrypt(data: bytes, piece_bytes: int | None = None) -> bytes:
    out = io.BytesIO()
    writer = StreamWriter(out.write, KEY, AAD)
    for start in range(0, len(data), piece_bytes or len(data) or 1):
        writer.write(data[start : start + (piece_bytes or len(data))])
    writer.close()
    return out.getvalue()


def reader(stream: bytes, key: bytes = KEY, associated: bytes = AAD) -> RangeReader:
    return RangeReader(lambda at, length: stream[at : at + length], len(stream), key, associated)


def decrypt(stream: bytes, key: bytes = KEY, associated: bytes = AAD) -> bytes:
    source = reader(stream, key, associated)
    source.verify()
    return b"".join(source.chunks(0, source.size_bytes))


@cache
def oracle() -> streaming_aead.StreamingAead:
    streaming_aead.register()
    key = aes_gcm_hkdf_streaming_pb2.AesGcmHkdfStreamingKey(key_value=KEY)
    key.params.ciphertext_segment_size = SEGMENT_BYTES
    key.params.derived_key_size = 32
    key.params.hkdf_hash_type = common_pb2.SHA256
    keyset = tink_pb2.Keyset(primary_key_id=1)
    entry = keyset.key.add(status=tink_pb2.ENABLED, key_id=1, output_prefix_type=tink_pb2.RAW)
    entry.key_data.type_url = "type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey"
    entry.key_data.value = key.SerializeToString()
    entry.key_data.key_material_type = tink_pb2.KeyData.SYMMETRIC
    handle = cleartext_keyset_handle.from_keyset(keyset)
    return handle.primitive(streaming_aead.StreamingAead)


class Kept(io.BytesIO):
    def close(self) -> None:
        self.kept = self.getvalue()
        super().close()


@pytest.mark.parametrize("size", SIZES)
def test_tink_reads_what_we_write(size: int) -> None:
    with oracle().new_decrypting_stream(io.BytesIO(encrypt(plain(size))), AAD) as stream:
        assert stream.read() == plain(size)


def test_after_a_write_that_failed_there_is_no_other() -> None:
    """It would have the number of that one, and two segments under one number give both away."""
    out: list[bytes] = []

    def sink(data: bytes) -> None:
        if len(out) == 1:
            raise OSError("full")
        out.append(data)

    writer = StreamWriter(sink, KEY, AAD)
    with pytest.raises(OSError, match="full"):
        writer.write(plain(FIRST + 1))
    out.clear()
    with pytest.raises(RuntimeError, match="broke off"):
        writer.write(plain(FIRST + 1))
    with pytest.raises(RuntimeError, match="broke off"):
        writer.close()
    assert not out


def test_what_follows_a_close_that_failed_is_refused() -> None:
    out: list[bytes] = []

    def sink(data: bytes) -> None:
        if out:
            raise OSError("full")
        out.append(data)

    writer = StreamWriter(sink, KEY, AAD)
    writer.write(plain(100))
    with pytest.raises(OSError, match="full") as failed:
        writer.close()
    # As long as the failure is there, so is what it was about.
    assert failed.traceback
    with pytest.raises(RuntimeError, match="broke off"):
        writer.write(plain(100))


@pytest.mark.parametrize("size", SIZES)
def test_we_read_what_tink_writes(size: int) -> None:
    kept = Kept()
    with oracle().new_encrypting_stream(kept, AAD) as stream:
        stream.write(plain(size))
    assert decrypt(kept.kept) == plain(size)
    assert len(kept.kept) == encrypted_bytes(size)


def test_tink_refuses_what_we_write_for_other_associated_data() -> None:
    with (
        pytest.raises(tink.TinkError),
        oracle().new_decrypting_stream(io.BytesIO(encrypt(b"x")), b"other") as stream,
    ):
        stream.read()


@pytest.mark.parametrize("piece_bytes", [1, 1000, NEXT, SEGMENT_BYTES, 3 * SEGMENT_BYTES])
def test_stream_does_not_depend_on_the_pieces_written(piece_bytes: int) -> None:
    data = plain(3000 if piece_bytes == 1 else FIRST + NEXT)
    stream = encrypt(data, piece_bytes)
    assert len(stream) == encrypted_bytes(len(data))
    assert decrypt(stream) == data


def test_same_data_encrypts_differently_each_time() -> None:
    assert encrypt(b"same") != encrypt(b"same")


@cache
def long_stream() -> tuple[bytes, bytes]:
    data = plain(3 * SEGMENT_BYTES + 17)
    return data, encrypt(data)


@settings(deadline=None)
@given(st.data())
def test_every_range_is_the_slice(data: st.DataObject) -> None:
    expected, stream = long_stream()
    edges = [0, FIRST, FIRST + NEXT, len(expected)]
    near_edge = st.sampled_from(edges).flatmap(lambda edge: st.integers(edge - 2, edge + 2))
    offsets = (near_edge | st.integers(0, len(expected))).map(lambda at: min(max(at, 0), len(expected)))
    start, end = sorted((data.draw(offsets), data.draw(offsets)))
    assert b"".join(reader(stream).chunks(start, end)) == expected[start:end]


def test_range_touches_only_its_segments() -> None:
    expected, stream = long_stream()
    asked = []

    def read_at(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return stream[offset : offset + length]

    source = RangeReader(read_at, len(stream), KEY, AAD)
    start = FIRST + 5
    assert b"".join(source.chunks(start, start + 10)) == expected[start : start + 10]
    assert asked == [(0, STREAM_HEADER_BYTES), (SEGMENT_BYTES, SEGMENT_BYTES)]


def test_offset_outside_the_stream_is_refused() -> None:
    source = reader(encrypt(b"abc"))
    for offset in (-1, 3):
        with pytest.raises(ValueError, match="outside"):
            source.chunk(offset, 4)


def test_flipping_any_byte_of_a_small_stream_is_noticed() -> None:
    stream = encrypt(b"some content")
    for index in range(len(stream)):
        damaged = bytearray(stream)
        damaged[index] ^= 1 << (index % 8)
        with pytest.raises(DamagedError):
            decrypt(bytes(damaged))


@settings(deadline=None)
@given(st.integers(0, len(long_stream()[1]) - 1), st.integers(1, 255))
def test_flipping_any_byte_of_a_long_stream_is_noticed(index: int, bits: int) -> None:
    damaged = bytearray(long_stream()[1])
    damaged[index] ^= bits
    with pytest.raises(DamagedError):
        decrypt(bytes(damaged))


def segments(stream: bytes) -> list[bytes]:
    return [stream[at : at + SEGMENT_BYTES] for at in range(0, len(stream), SEGMENT_BYTES)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda stream: stream[:-1],
        lambda stream: stream + b"\0",
        lambda stream: b"".join(segments(stream)[:-1]),
        lambda stream: b"".join(segments(stream)[:1]),
        lambda stream: stream[: 2 * SEGMENT_BYTES + 16],
        lambda stream: stream[:STREAM_HEADER_BYTES],
        lambda stream: b"",
        lambda stream: b"".join(segments(stream)[i] for i in (0, 2, 1, 3)),
        lambda stream: b"".join(segments(stream)[i] for i in (0, 1, 1, 3)),
        lambda stream: b"".join([*segments(stream), segments(stream)[-1]]),
        lambda stream: segments(encrypt(long_stream()[0]))[0] + stream[SEGMENT_BYTES:],
    ],
    ids=[
        *("cut by one", "longer by one", "last gone", "only the first", "cut in a segment", "only the header"),
        *("empty", "swapped", "repeated", "appended", "of two streams"),
    ],
)
def test_cut_extended_reordered_and_mixed_streams_are_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DamagedError):
        decrypt(damage(long_stream()[1]))


def test_wrong_key_and_wrong_associated_data_are_refused() -> None:
    stream = encrypt(b"content")
    with pytest.raises(DamagedError):
        decrypt(stream, key=os.urandom(32))
    with pytest.raises(DamagedError):
        decrypt(stream, associated=AAD + b"x")
    with pytest.raises(ValueError, match="32 bytes"):
        decrypt(stream, key=b"short")


def test_file_that_shrinks_after_it_was_opened_is_refused() -> None:
    stream = bytearray(encrypt(b"content"))
    source = RangeReader(lambda at, length: bytes(stream[at : at + length]), len(stream), KEY, AAD)
    del stream[-3:]
    with pytest.raises(DamagedError, match="cut short"):
        source.chunk(0, 1)
