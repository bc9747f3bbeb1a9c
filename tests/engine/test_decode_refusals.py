"""Files that are no picture, more than one, or larger than allowed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin
from tests.engine.decoding import LIMITS, pixels, refusal
from tests.engine.images import bmp, grey, insert_png_chunk, pillow, png, png_chunk, scene, tiff

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import png as png_format

FORMATS = ["JPEG", "PNG", "TIFF", "BMP"]


def test_empty_file_is_no_format() -> None:
    assert refusal(b"") == Reason.IMAGE_INVALID_FORMAT


def test_wrong_md5_is_found_before_the_format() -> None:
    assert refusal(b"anything", expected_md5=bytes(16)) == Reason.IMAGE_MD5_MISMATCH


def test_right_md5_passes() -> None:
    data = pillow(scene(), "PNG")
    assert pixels(data, 97, 61, expected_md5=hashlib.md5(data).digest()).shape == (61, 97, 3)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_truncated_file_cannot_be_decoded(kind: str, share: float) -> None:
    data = pillow(scene(300, 200), kind)
    assert refusal(data[: int(len(data) * share)]) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64)}], ids=["strips", "tiles"])
def test_truncated_tiff_cannot_be_decoded(compression: str, layout: dict[str, Any]) -> None:
    data = tiff(scene(300, 200), photometric="rgb", compression=compression, **layout)
    assert refusal(data[: len(data) * 2 // 3]) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64)}], ids=["strips", "tiles"])
def test_damaged_tiff_cannot_be_decoded(layout: dict[str, Any]) -> None:
    data = bytearray(tiff(scene(300, 200), photometric="rgb", compression="deflate", **layout))
    data[len(data) // 2] ^= 0x5A
    assert refusal(bytes(data)) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_large_truncated_file_cannot_be_decoded(kind: str) -> None:
    limits = dataclasses.replace(LIMITS, max_side_px=8192, max_pixels=1 << 26)
    data = pillow(np.zeros((4100, 4100), np.uint8), kind)
    data = data[:-40] if kind == "PNG" else data[:1_000_000]
    assert refusal(data, limits) == Reason.IMAGE_DECODING_FAILED


def test_large_png_with_damaged_data_cannot_be_decoded() -> None:
    limits = dataclasses.replace(LIMITS, max_side_px=8192, max_pixels=1 << 26)
    data = bytearray(pillow(np.zeros((4100, 4100), np.uint8), "PNG"))
    data[len(data) // 2] ^= 0x55
    assert refusal(bytes(data), limits) == Reason.IMAGE_DECODING_FAILED


def png_rows(data: bytes, change: Callable[[bytes], bytes], interlaced: bool = False) -> bytes:
    """Change what a PNG of one IDAT chunk has packed."""
    at = data.index(b"IDAT")
    length = int.from_bytes(data[at - 4 : at], "big")
    packed = zlib.compress(change(zlib.decompress(data[at + 4 : at + 4 + length])))
    header = data[16:28] + bytes([interlaced])
    return data[:8] + png_chunk(b"IHDR", header) + data[33 : at - 4] + png_chunk(b"IDAT", packed) + data[-12:]


PNGS = {
    "RGB": pillow(scene(160, 160), "PNG"),
    "L": pillow(grey(97, 61), "PNG"),
    "LA": pillow(Image.fromarray(scene()).convert("LA"), "PNG"),
    "P": pillow(Image.fromarray(scene()).quantize(32), "PNG"),
    "1": pillow(Image.fromarray(scene()).convert("1"), "PNG"),
    "RGBA": pillow(np.zeros((50, 40, 4), np.uint8), "PNG"),
    "I;16": png(grey().astype(np.uint16) * 257, 16, 0),
    "RGB;16": png(scene().astype(np.uint16) * 257, 16, 2),
    "row": png(np.zeros((1, 7), np.uint8), 8, 0),
    "pixel": png(np.zeros((1, 1), np.uint8), 8, 0),
}


@pytest.mark.parametrize("name", PNGS)
@pytest.mark.parametrize("by", [png_format._PILLOW_PIXELS, 0], ids=["whole", "bands"])
def test_png_whose_data_end_before_the_last_row_cannot_be_decoded(
    name: str, by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(png_format, "_PILLOW_PIXELS", by)
    for change in (lambda rows: rows[: len(rows) // 2], lambda rows: rows[:-1]):
        assert refusal(png_rows(PNGS[name], change)) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("name", PNGS)
def test_png_with_data_behind_the_last_row_is_a_picture(name: str) -> None:
    assert pixels(png_rows(PNGS[name], lambda rows: rows + bytes(1000)), 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("width", "height", "unpacked"),
    [(1, 1, 2), (2, 1, 4), (5, 1, 9), (1, 2, 4), (3, 3, 15), (160, 160, 25_900)],
)
def test_interlaced_png_is_a_picture_with_all_its_data_only(width: int, height: int, unpacked: int) -> None:
    data = png(np.zeros((height, width), np.uint8), 8, 0)
    whole = png_rows(data, lambda _: bytes(unpacked), interlaced=True)
    assert pixels(whole, width, height).shape == (height, width, 3)
    short = png_rows(data, lambda _: bytes(unpacked - 1), interlaced=True)
    assert refusal(short) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("name", PNGS)
def test_row_that_looks_like_the_noise_is_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "urandom", bytes)
    data = png_rows(PNGS[name], lambda rows: bytes(len(rows)))
    assert pixels(data, 32, 32).shape == (32, 32, 3)


@pytest.mark.parametrize("kind", FORMATS)
def test_more_pixels_than_allowed_are_too_large(kind: str) -> None:
    data = pillow(grey(60, 60), kind)
    assert refusal(data, dataclasses.replace(LIMITS, max_pixels=3599)) == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("kind", FORMATS)
def test_side_beyond_the_limit_is_too_large_and_says_so(kind: str) -> None:
    data = pillow(grey(60, 40), kind)
    with pytest.raises(ApiError) as caught:
        pixels(data, 60, 40, limits=dataclasses.replace(LIMITS, max_side_px=59))
    assert caught.value.reason == Reason.IMAGE_TOO_LARGE
    assert caught.value.details == {"width": 60, "height": 40, "max_side_px": 59, "max_pixels": LIMITS.max_pixels}


@pytest.mark.parametrize("kind", FORMATS)
def test_sizes_are_checked_before_pixels_are_read(kind: str) -> None:
    data = pillow(grey(60, 60), kind)
    if kind in ("PNG", "BMP"):
        data = data[:200] if kind == "BMP" else data[:41] + b"\0" * (len(data) - 57) + data[-16:]
    limits = dataclasses.replace(LIMITS, max_pixels=3599)
    assert refusal(data, limits) in (Reason.IMAGE_TOO_LARGE, Reason.IMAGE_DECODING_FAILED)
    assert refusal(pillow(grey(60, 60), kind), limits) == Reason.IMAGE_TOO_LARGE


@pytest.mark.parametrize(("width", "height"), [(201, 1), (1, 201), (4096, 20)])
def test_longer_than_the_aspect_limit_is_refused(width: int, height: int) -> None:
    assert refusal(pillow(grey(width, height), "PNG")) == Reason.IMAGE_ASPECT_RATIO


def test_aspect_at_the_limit_passes() -> None:
    assert pixels(pillow(grey(200, 1), "PNG"), 200, 1).shape == (1, 200, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_zero_side_cannot_be_decoded(kind: str) -> None:
    data = bytearray(pillow(grey(), kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 2] = b"\0\0"
    elif kind == "PNG":
        data[16:20] = bytes(4)
    else:
        data[18:22] = bytes(4)
    assert refusal(bytes(data)) == Reason.IMAGE_DECODING_FAILED


def test_animated_png_is_refused() -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    data = pillow(frames[0], "PNG", save_all=True, append_images=frames[1:])
    assert refusal(data) == Reason.IMAGE_ANIMATED_NOT_SUPPORTED


def test_animation_chunk_behind_the_data_means_nothing() -> None:
    data = pillow(grey(), "PNG")
    data = data[:-12] + png_chunk(b"acTL", struct.pack(">II", 2, 0)) + data[-12:]
    assert pixels(data, 97, 61).shape == (61, 97, 3)


def test_tiff_of_two_pages_is_refused() -> None:
    data = pillow(Image.fromarray(scene()), "TIFF", save_all=True, append_images=[Image.fromarray(scene())])
    assert refusal(data) == Reason.IMAGE_ANIMATED_NOT_SUPPORTED


def test_tiff_of_two_pages_of_other_sizes_is_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "two.tif") as writer:
        writer.write(scene(100, 80), photometric="rgb")
        writer.write(scene(70, 80), photometric="rgb")
    assert refusal((tmp_path / "two.tif").read_bytes()) == Reason.IMAGE_ANIMATED_NOT_SUPPORTED


def patched_next_directory(data: bytes, value: int) -> bytes:
    at = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, at)[0]
    place = at + 2 + 12 * count
    return data[:place] + struct.pack("<I", value) + data[place + 4 :]


def test_loop_of_tiff_directories_cannot_be_decoded() -> None:
    data = tiff(scene(), photometric="rgb", subfiletype=1)
    assert refusal(patched_next_directory(data, struct.unpack_from("<I", data, 4)[0])) == Reason.IMAGE_DECODING_FAILED


def test_endless_chain_of_tiff_directories_is_refused() -> None:
    data = bytearray(b"II*\0" + struct.pack("<I", 8))
    for index in range(2000):
        following = 8 + 18 * (index + 1)
        data += struct.pack("<HHHIII", 1, 254, 4, 1, 1, following)
    assert refusal(bytes(data)) == Reason.IMAGE_REJECTED


def test_tiff_with_too_many_tags_cannot_be_decoded() -> None:
    data = b"II*\0" + struct.pack("<IH", 8, 60_000) + bytes(60_000 * 12 + 4)
    assert refusal(data) == Reason.IMAGE_DECODING_FAILED


def tagged_pages(pages: int, private_tags: int) -> bytes:
    buffer = io.BytesIO()
    tags = [(40_000 + number, "H", 1, 7, True) for number in range(private_tags)]
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(pages):
            writer.write(grey(16, 16), subfiletype=1, metadata=None, extratags=tags)
    return buffer.getvalue()


@pytest.mark.parametrize("pages", [1, 3, 70])
def test_more_tags_than_a_tiff_has_are_refused(pages: int) -> None:
    most = 2048 // pages
    # Each page has some of its own besides.
    assert pixels(tagged_pages(pages, most - 20), 16, 16).shape == (16, 16, 3)
    assert refusal(tagged_pages(pages, most)) == Reason.IMAGE_REJECTED


def test_tile_larger_than_memory_is_refused() -> None:
    data = tiff(grey(64, 64), tile=(64, 64))
    wide, tall = struct.pack("<HHI", 322, 4, 1), struct.pack("<HHI", 323, 4, 1)
    for tag in (wide, tall):
        short = tag[:2] + struct.pack("<HI", 3, 1)
        at = data.index(tag) if tag in data else data.index(short)
        data = data[:at] + tag + struct.pack("<I", 1 << 20) + data[at + 12 :]
    assert refusal(data) == Reason.IMAGE_REJECTED


def test_interlaced_png_larger_than_memory_is_refused() -> None:
    data = bytearray(pillow(np.zeros((1000, 1000, 3), np.uint8), "PNG"))
    data[28] = 1
    limits = dataclasses.replace(LIMITS, memory_bytes=4_000_000)
    assert refusal(bytes(data), limits) == Reason.IMAGE_REJECTED


BOMB = zlib.compress(bytes(64 << 20), 9)


def test_a_bomb_in_a_colour_profile_is_refused() -> None:
    data = insert_png_chunk(pillow(grey(), "PNG"), b"iCCP", b"k\0\0" + BOMB)
    assert refusal(data) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize(("kind", "head"), [(b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")])
def test_a_bomb_in_text_is_never_unpacked(kind: bytes, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[bytes] = []
    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", unpacked.append)
    data = insert_png_chunk(pillow(grey(), "PNG"), kind, head + BOMB)
    assert pixels(data, 32, 32).shape == (32, 32, 3)
    assert not unpacked


@pytest.mark.parametrize("kind", [b"tEXt", b"prVt", b"IDAT"])
def test_more_chunks_than_a_png_has_are_refused(kind: bytes) -> None:
    data = pillow(grey(), "PNG")
    at = data.index(b"IDAT") - 4
    assert refusal(data[:at] + png_chunk(kind, b"") * 100_000 + data[at:]) == Reason.IMAGE_REJECTED
    assert pixels(data[:at] + png_chunk(kind, b"") * 10_000 + data[at:], 32, 32).shape == (32, 32, 3)


def test_png_without_its_end_cannot_be_decoded() -> None:
    assert refusal(pillow(grey(), "PNG")[:-12]) == Reason.IMAGE_DECODING_FAILED


def test_png_chunk_longer_than_the_file_cannot_be_decoded() -> None:
    data = insert_png_chunk(pillow(grey(), "PNG"), b"tEXt", b"")
    assert refusal(data[:33] + b"\x7f\xff\xff\xff" + data[37:]) == Reason.IMAGE_DECODING_FAILED


def test_bmp_with_less_data_than_its_size_says_cannot_be_decoded() -> None:
    assert refusal(bmp(scene(), 24)[:-100]) == Reason.IMAGE_DECODING_FAILED


def test_mixed_sample_depths_of_a_tiff_cannot_be_decoded() -> None:
    data = tiff(scene(), photometric="rgb")
    at = data.index(struct.pack("<HHHH", 8, 8, 8, 0)[:6], 8)
    assert refusal(data[:at] + struct.pack("<HHH", 8, 16, 8) + data[at + 6 :]) == Reason.IMAGE_DECODING_FAILED


def test_file_name_and_media_type_are_both_checked() -> None:
    data = png(grey(), 8, 0)
    assert refusal(data, declared_media_type="image/jpeg") == Reason.MEDIA_MISMATCH
    assert refusal(data, declared_media_type="image/png", file_name="a.jpg") == Reason.MEDIA_MISMATCH
