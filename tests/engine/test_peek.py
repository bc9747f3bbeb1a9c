"""What is kept of a stream is enough to read a header, and no more than was set aside for it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from tests.images import directory_last, encoded

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget
from camserve_server.engine.decode import probe
from camserve_server.engine.formats.raster import Limits
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.peek import BEGINNING_BYTES, Peek

LIMITS = Limits(16_384, 268_435_456, 200, 100, 4_000_000_000, 2 << 30)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def peeked(data: bytes, size: int = 100_000) -> Peek:
    peek = Peek()
    for piece in pieces(data, size):
        peek.feed(piece)
    peek.finish()
    return peek


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_short_file_is_kept_whole(size: int) -> None:
    data = os.urandom(5_000)
    peek = peeked(data, size)
    assert peek.complete
    assert os.pread(peek.fd, 10_000, 0) == data
    peek.close()


def test_of_a_long_file_the_beginning_is_kept_and_the_length_told() -> None:
    data = os.urandom(BEGINNING_BYTES + 1_000_000)
    peek = peeked(data, 1 << 20)
    assert not peek.complete
    assert os.fstat(peek.fd).st_size == len(data)
    assert os.pread(peek.fd, BEGINNING_BYTES, 0) == data[:BEGINNING_BYTES]
    assert os.pread(peek.fd, 1_000_000, BEGINNING_BYTES) == bytes(1_000_000)
    assert os.fstat(peek.fd).st_blocks * 512 < len(data)
    peek.close()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_the_directory_of_a_tiff_is_kept_wherever_it_lies(order: str, big: bool) -> None:
    place = BEGINNING_BYTES + 300_000
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(f"{order}HHHQ", 43, 8, 0, place) if big else struct.pack(f"{order}HI", 42, place))
    data = head + bytes(place - len(head)) + b"directory" + os.urandom(1_000_000)
    peek = peeked(data, 99_991)
    assert os.pread(peek.fd, 9, place) == b"directory"
    assert os.pread(peek.fd, 100, place - 200) == bytes(100)
    peek.close()


def test_a_tiff_of_many_megabytes_tells_its_size() -> None:
    data = directory_last(encoded(1_900, 1_900, "TIFF"))
    assert struct.unpack("<I", data[4:8])[0] > BEGINNING_BYTES
    peek = peeked(data)
    found = probe(PictureFile(peek.fd, peek.size), "image/tiff", None, LIMITS)
    assert (found.width, found.height, found.media_type) == (1_900, 1_900, "image/tiff")
    peek.close()


def test_a_png_of_many_megabytes_tells_its_size() -> None:
    data = encoded(2_000, 1_900, "PNG")
    assert len(data) > BEGINNING_BYTES
    peek = peeked(data)
    found = probe(PictureFile(peek.fd, peek.size, peek.held), "image/png", None, LIMITS)
    assert (found.width, found.height, found.media_type) == (2_000, 1_900, "image/png")
    peek.close()


def test_a_place_that_no_file_reaches_is_a_refusal() -> None:
    peek = peeked(b"II" + struct.pack("<HHHQ", 43, 8, 0, 2**64 - 2))
    with pytest.raises(ApiError) as caught:
        probe(PictureFile(peek.fd, peek.size), None, None, LIMITS)
    assert caught.value.reason is Reason.IMAGE_DECODING_FAILED
    peek.close()


def test_memory_is_taken_from_the_budget_and_given_back() -> None:
    budget = ByteBudget(1_000)
    peek = Peek(budget)
    peek.feed(bytes(900))
    with pytest.raises(ApiError) as caught:
        peek.feed(bytes(200))
    assert caught.value.reason is Reason.SERVICE_OVERLOADED
    peek.close()
    peek.close()
    assert budget.try_take(1_000)
