"""Run-length codes of BMP: what they draw, and what they may cost."""

from __future__ import annotations

import io
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.engine.decoding import LIMITS, pixels, refusal
from tests.engine.images import bmp, scene, shared

from camserve_server.base.errors import Reason
from camserve_server.engine.formats import bmp_rle
from camserve_server.engine.formats.source import PictureFile

PALETTE = scene(16, 16).reshape(256, 3)
LINE, END = b"\0\0", b"\0\1"


def rle(width: int, height: int, codes: bytes, bits: int = 8, palette: Any = PALETTE) -> bytes:
    """Return a BMP that has these codes."""
    colours = palette[: 1 << bits]
    plain = bmp(np.zeros((1, 8), np.uint8), bits, palette=colours)
    offset = struct.unpack_from("<I", plain, 10)[0]
    head = plain[:18] + struct.pack("<ii", width, height) + plain[26:30]
    return head + struct.pack("<II", 1 if bits == 8 else 2, len(codes)) + plain[38:offset] + codes


def drawn(width: int, height: int, codes: bytes, bits: int = 8) -> Any:
    """Return the numbers of the colours, the lowest row first."""
    with shared(codes) as buffer:
        return bmp_rle.decode(PictureFile(buffer.fd, buffer.size), 0, width, height, nibbles=bits == 4)


def absolute(values: bytes, bits: int) -> bytes:
    data = (
        values if bits == 8 else bytes(int(f"{values.hex()[1::2]}0"[i : i + 2], 16) for i in range(0, len(values), 2))
    )
    return bytes([0, len(values)]) + data + bytes(len(data) % 2)


@st.composite
def pictures(draw: st.DrawFn) -> tuple[int, int, int, bytes]:
    """Draw codes that fill the picture line by line, as every decoder reads them."""
    bits = draw(st.sampled_from([4, 8]))
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 12))
    colour = st.integers(0, (1 << bits) - 1)
    codes = b""
    for _ in range(height):
        x = 0
        while x < width:
            kind = draw(st.sampled_from(["run", "absolute", "rest", "jump"]))
            if kind == "absolute" and width - x >= 3:
                values = bytes(draw(st.lists(colour, min_size=3, max_size=width - x)))
                codes += absolute(values, bits)
                x += len(values)
            elif kind == "jump":
                right = draw(st.integers(0, width - x - 1))
                codes += bytes([0, 2, right, 0])
                x += right
            elif kind == "rest" and x:
                break
            else:
                length = draw(st.integers(1, 60))
                codes += bytes([length, draw(st.integers(0, 255))])
                x += length
        codes += LINE
    return width, height, bits, codes + END


@given(pictures())
@settings(max_examples=300, deadline=None)
def test_codes_draw_what_pillow_draws(picture: tuple[int, int, int, bytes]) -> None:
    width, height, bits, codes = picture
    data = rle(width, height, codes, bits)
    seen = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(data, width, height, limits=replace(LIMITS, max_aspect=1000)), seen)


@given(pictures(), st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_codes_draw_the_same_wherever_reading_stops(picture: tuple[int, int, int, bytes], steps: int) -> None:
    width, height, bits, codes = picture
    with pytest.MonkeyPatch.context() as patch:
        whole = drawn(width, height, codes, bits)
        patch.setattr(bmp_rle, "_CHUNK_BYTES", 60 + 2 * steps)
        patch.setattr(bmp_rle, "_PAINTED_AT_ONCE", steps)
        assert np.array_equal(drawn(width, height, codes, bits), whole)


@pytest.mark.parametrize(
    ("codes", "rows"),
    [
        (b"\3\1" + LINE + LINE + b"\3\2" + LINE + END, [[1, 1, 1], [0, 0, 0], [2, 2, 2]]),
        (b"\1\1" + END, [[1, 0, 0], [0, 0, 0], [0, 0, 0]]),
        (b"\0\2\1\1\1\7" + LINE + b"\3\2" + END, [[0, 0, 0], [0, 7, 0], [2, 2, 2]]),
        (b"\xff\1\xff\2" + LINE + b"\0\4abcd" + LINE + b"\3\3" + END, [[1, 1, 1], [97, 98, 99], [3, 3, 3]]),
        (b"\0\2\0\xff", [[0, 0, 0]] * 3),
        ((b"\3\1" + LINE) * 9, [[1, 1, 1]] * 3),
    ],
    ids=["empty line", "early end", "jump", "beyond the line", "jump beyond the top", "beyond the top"],
)
def test_codes_draw_what_the_format_says(codes: bytes, rows: list[list[int]]) -> None:
    assert drawn(3, 3, codes).tolist() == rows


def test_rows_of_a_file_go_from_bottom_to_top() -> None:
    seen = pixels(rle(2, 2, b"\2\1" + LINE + b"\2\2" + END), 2, 2)
    assert np.array_equal(seen[:, 0], PALETTE[[2, 1]])


def test_two_greys_are_black_and_white() -> None:
    codes = b"\3\x01" + LINE + b"\3\x10" + END
    data = bytearray(rle(3, 2, codes, 4, np.array([[0, 0, 0], [255, 255, 255]])))
    assert pixels(bytes(data), 3, 2)[..., 0].tolist() == [[255, 0, 255], [0, 255, 0]]


@pytest.mark.parametrize("codes", [b"", b"\1", b"\3\1" + LINE, b"\0\3a", b"\0\2\1", b"\3\1" + LINE + b"\0\xffabc"])
def test_codes_that_end_too_early_cannot_be_decoded(codes: bytes) -> None:
    assert refusal(rle(3, 3, codes)) == Reason.IMAGE_DECODING_FAILED


def test_a_large_picture_of_few_pixels_is_drawn() -> None:
    data = rle(8600, 8600, (b"\1\1" + LINE) * 8600 + END)
    limits = replace(LIMITS, max_side_px=16_384, max_pixels=1 << 28)
    assert pixels(data, 64, 64, limits=limits).shape == (64, 64, 3)


def test_more_escapes_than_a_picture_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bmp_rle, "_MOST_ESCAPES", 10)
    assert refusal(rle(40, 1, b"\0\3abc\0" * 11 + END)) == Reason.IMAGE_REJECTED
    assert pixels(rle(30, 1, b"\0\3abc\0" * 10 + END), 30, 1).shape == (1, 30, 3)
