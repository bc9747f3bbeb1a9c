"""JPEG that is cut, damaged, or costs more than a picture does."""

from __future__ import annotations

import dataclasses
import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin
from tests.engine.decoding import LIMITS, pixels, refusal
from tests.engine.images import grey, pillow, scene, shared

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.formats import jpeg
from camserve_server.engine.formats.source import PictureFile

SCANS = [
    {"quality": 95, "subsampling": 0},
    {"subsampling": 2},
    {"restart_marker_blocks": 1},
    {"progressive": True},
    {"progressive": True, "restart_marker_rows": 1},
]


def cut_scan(data: bytes, share: float) -> bytes:
    """Leave this share of a JPEG's last scan, and put the end marker behind it."""
    start = data.rindex(b"\xff\xda") + 14
    return data[: start + int((len(data) - 2 - start) * share)].rstrip(b"\xff") + b"\xff\xd9"


@pytest.mark.parametrize("options", SCANS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("tail", [b"", b"junk\xff\xd9"], ids=["", "tail"])
def test_jpeg_that_ends_inside_a_scan_cannot_be_decoded(
    options: dict[str, Any], mode: str, share: float, tail: bytes
) -> None:
    picture = Image.fromarray(np.dstack([scene(301, 203), grey(301, 203)]))
    picture = Image.merge("CMYK", picture.split()) if mode == "CMYK" else picture.convert(mode)
    data = pillow(picture, "JPEG", **options)
    assert refusal(cut_scan(data, share) + tail) == Reason.IMAGE_DECODING_FAILED


def test_jpeg_that_ends_inside_a_scan_cannot_be_decoded_in_small() -> None:
    data = pillow(scene(1600, 1200), "JPEG", quality=100)
    assert len(data) > 2 << 16
    assert refusal(cut_scan(data, 0.5)) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize("scans", range(1, 10))
def test_progressive_jpeg_without_its_last_scans_is_a_picture(scans: int) -> None:
    data = pillow(scene(160, 160), "JPEG", progressive=True)
    ends = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    assert pixels(data[: ends[scans]] + b"\xff\xd9", 160, 160).shape == (160, 160, 3)


@pytest.mark.parametrize("options", SCANS, ids=str)
@pytest.mark.parametrize("picture", [scene(301, 203), np.full((203, 301, 3), 128, np.uint8)], ids=["scene", "grey"])
@pytest.mark.parametrize(
    ("before_end", "behind"),
    [
        (b"extra\0bytes", b""),
        (bytes(40), b""),
        (b"\xff\xff", b""),
        (b"\xff\xfe\0\4ab", b""),
        (b"", b"junk"),
        (b"", b"\xff\xd9"),
        (b"", bytes(70_000)),
        (b"", b"\xff\xd8\xff\xd9"),
    ],
)
def test_what_stands_around_the_end_of_a_jpeg_does_not_matter(
    options: dict[str, Any], picture: np.ndarray[Any, Any], before_end: bytes, behind: bytes
) -> None:
    data = pillow(picture, "JPEG", **options)
    odd = data[:-2] + before_end + data[-2:] + behind
    np.testing.assert_array_equal(pixels(odd, 301, 203), pixels(data, 301, 203))


def test_progressive_jpeg_larger_than_memory_is_refused() -> None:
    data = pillow(scene(1000, 800), "JPEG", progressive=True, subsampling=0)
    needed = 1000 * 800 * 3 * 2
    assert refusal(data, dataclasses.replace(LIMITS, memory_bytes=needed - 1)) == Reason.IMAGE_REJECTED
    enough = dataclasses.replace(LIMITS, memory_bytes=needed * 2)
    assert pixels(data, 100, 80, limits=enough).shape == (80, 100, 3)


def test_chroma_subsampling_lowers_the_price_of_progressive_jpeg() -> None:
    data = pillow(scene(1600, 1600), "JPEG", progressive=True, subsampling=2)
    limits = dataclasses.replace(LIMITS, memory_bytes=1600 * 1600 * 3)
    assert pixels(data, 10, 10, limits=limits).shape == (10, 10, 3)


def test_baseline_jpeg_of_one_scan_has_no_price() -> None:
    limits = dataclasses.replace(LIMITS, memory_bytes=1000)
    assert pixels(pillow(scene(400, 400), "JPEG"), 10, 10, limits=limits).shape == (10, 10, 3)


def with_scans(data: bytes, scans: int) -> bytes:
    """Repeat the first scan of a progressive JPEG, which changes nothing, as a refinement would."""
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xc4", first)
    return data[:second] + data[first:second] * scans + data[second:]


def test_too_many_jpeg_scans_are_refused() -> None:
    data = pillow(scene(64, 64), "JPEG", progressive=True)
    assert refusal(with_scans(data, 100)) == Reason.IMAGE_REJECTED
    assert pixels(with_scans(data, 20), 64, 64).shape == (64, 64, 3)


def test_many_scans_of_many_pixels_are_refused() -> None:
    data = with_scans(pillow(scene(1000, 1000), "JPEG", progressive=True), 20)
    limits = dataclasses.replace(LIMITS, max_jpeg_scan_pixels=20_000_000)
    assert refusal(data, limits) == Reason.IMAGE_REJECTED


def test_scan_markers_behind_the_picture_do_not_count() -> None:
    data = pillow(scene(64, 64), "JPEG", progressive=True) + b"\xff\xda" * 1000
    assert pixels(data, 64, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("comment", [b"\xff\xd9", bytes(70_000)[:65_000] + b"\xff\xd9"])
def test_scans_count_although_a_segment_before_them_holds_the_end_marker(comment: bytes) -> None:
    data = pillow(scene(64, 64), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    segment = b"\xff\xfe" + struct.pack(">H", len(comment) + 2) + comment
    hidden = data[:last] + segment + data[last:-2] * 200 + data[-2:]
    assert refusal(hidden) == Reason.IMAGE_REJECTED
    assert pixels(data[:last] + segment + data[last:], 64, 64).shape == (64, 64, 3)


@pytest.mark.parametrize("shift", range(8))
def test_scans_are_found_at_the_border_of_what_is_read_at_once(shift: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "_CHUNK_BYTES", 8)
    data = pillow(scene(64, 64), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    padded = data[:first] + b"\xff\xfe" + struct.pack(">H", 2 + shift) + bytes(shift) + data[first:]
    with shared(padded) as buffer:
        assert jpeg.scan_components(PictureFile(buffer.fd, buffer.size), first, 100) == [3, 1, 1, 1, 1, 1, 3, 1, 1, 1]


def test_a_scan_of_all_components_costs_as_much_as_one_of_each() -> None:
    data = pillow(scene(100, 100), "JPEG", progressive=True)
    assert refusal(data, dataclasses.replace(LIMITS, max_jpeg_scan_pixels=139_999)) == Reason.IMAGE_REJECTED
    assert pixels(data, 32, 32, limits=dataclasses.replace(LIMITS, max_jpeg_scan_pixels=140_000)).size


def test_more_segments_than_a_picture_has_are_refused() -> None:
    data = pillow(scene(64, 64), "JPEG", progressive=True)
    assert refusal(data[:-2] + b"\xff\xfe\0\2" * 10_000 + data[-2:]) == Reason.IMAGE_REJECTED


def jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def test_segments_that_nobody_wants_are_skipped() -> None:
    data = pillow(scene(64, 64), "JPEG")
    wanted_by_none = [(0xE1, b"Exif\0\0II"), (0xED, b"Photoshop 3.0\x008BIM"), (0xFE, b"comment")]
    bomb = data[:2] + b"".join(jpeg_segment(*segment) * 2000 for segment in wanted_by_none) + data[2:]
    opened = JpegImagePlugin.JpegImageFile(io.BytesIO(bomb))
    assert not {"exif", "photoshop", "comment"} & opened.info.keys()
    assert not opened.quantization
    np.testing.assert_array_equal(pixels(bomb, 64, 64), pixels(data, 64, 64))


def test_jpeg_with_a_second_frame_header_is_not_opened() -> None:
    data = pillow(scene(64, 64), "JPEG")
    frame = data.index(b"\xff\xc0")
    twice = data[: frame + 19] + data[frame:]
    with shared(twice) as buffer, pytest.raises(ApiError) as caught:
        jpeg.read_header(PictureFile(buffer.fd, buffer.size))
    assert caught.value.reason == Reason.IMAGE_DECODING_FAILED


def test_junk_between_segments_is_skipped_up_to_a_megabyte() -> None:
    data = pillow(scene(64, 64), "JPEG")
    end = 4 + int.from_bytes(data[4:6], "big")
    assert pixels(data[:end] + bytes(1 << 20) + data[end:], 64, 64).shape == (64, 64, 3)
    assert refusal(data[:end] + bytes((1 << 20) + 1) + data[end:]) == Reason.IMAGE_REJECTED
