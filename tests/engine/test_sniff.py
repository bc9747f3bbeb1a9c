from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image
from tests.engine.images import pillow, scene, shared, tiff

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine import sniff as sniff_module
from camserve_server.engine.formats.source import PictureFile
from camserve_server.engine.sniff import Sniffed, check_declaration, sniff


def kind_of(data: bytes) -> Sniffed:
    with shared(data) as buffer:
        return sniff(PictureFile(buffer.fd, buffer.size))


def reason(sniffed: Sniffed, media_type: str | None = None, file_name: str | None = None) -> Reason | None:
    try:
        check_declaration(sniffed, media_type, file_name)
    except ApiError as error:
        return error.reason
    return None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_accepted_formats_are_known_by_their_bytes(kind: str) -> None:
    assert kind_of(pillow(scene(), kind)) == Sniffed(kind.lower())


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_every_tiff_signature_is_known(options: dict[str, object]) -> None:
    assert kind_of(tiff(scene(), photometric="rgb", **options)) == Sniffed("tiff")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "ICO", "JPEG2000", "AVIF", "PPM", "PDF", "DDS", "SGI"])
def test_known_but_unsupported_format_is_named(kind: str) -> None:
    sniffed = kind_of(pillow(scene(64, 64), kind))
    assert not sniffed.animated
    assert reason(sniffed) == Reason.MEDIA_UNSUPPORTED


@pytest.mark.parametrize(
    "head",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\xef\xbb\xbf \n<?xml version='1.0'?><!-- x --><svg/>",
        b"8BPS\0\1",
        b"\x00\x00\x00\x18ftypheic",
        b"\x00\x00\x00\x0cJXL \r\n\x87\n",
        b"\xff\x0a\x00",
        b"\xff\x4f\xff\x51",
        b"II*\0\x10\0\0\0CR\2\0",
        b"junk %PDF-1.4",
    ],
)
def test_unsupported_signature_is_known(head: bytes) -> None:
    assert reason(kind_of(head.ljust(200, b"\0"))) == Reason.MEDIA_UNSUPPORTED


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_animation_is_told_from_a_still(kind: str) -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    sniffed = kind_of(pillow(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert reason(sniffed) == Reason.IMAGE_ANIMATED_NOT_SUPPORTED


def test_gif_of_more_blocks_than_a_picture_has_is_not_walked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.fromarray(scene()), Image.fromarray(255 - scene())]
    data = pillow(frames[0], "GIF", save_all=True, append_images=frames[1:])
    at = 13 + (3 << (data[10] & 7) + 1)
    data = data[:at] + b"\x21\xfe" + b"\1\0" * 1000 + b"\0" + data[at:]
    assert kind_of(data) == Sniffed("gif", animated=True)
    monkeypatch.setattr(sniff_module, "_MAX_GIF_BLOCKS", 1000)
    assert kind_of(data) == Sniffed("gif")


def test_gif_cut_inside_its_first_frame_is_a_still() -> None:
    data = pillow(Image.fromarray(np.zeros((300, 300), np.uint8)), "GIF")
    for end in (7, 12, 13, 14, 20, 30, len(data) - 3):
        assert kind_of(data[:end]) == Sniffed("gif")


@pytest.mark.parametrize(
    "data", [b"hello", b"\0" * 64, b"BM and more text that is no bitmap", b"<html></html>", b"\xff"]
)
def test_unknown_bytes_are_no_format(data: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        kind_of(data)
    assert caught.value.reason == Reason.IMAGE_INVALID_FORMAT


def test_bitmap_needs_a_known_header_size() -> None:
    assert kind_of(b"BM" + bytes(12) + struct.pack("<I", 40)) == Sniffed("bmp")


@pytest.mark.parametrize(
    ("kind", "declared"),
    [
        ("jpeg", "image/jpeg"), ("jpeg", "image/jpg"), ("jpeg", "image/pjpeg"), ("jpeg", "IMAGE/JPEG; q=1"),
        ("png", "image/png"), ("png", "image/x-png"), ("png", "image/apng"), ("tiff", "image/tif"),
        ("bmp", "image/x-ms-bmp"), ("bmp", "image/x-bmp"), ("png", ""), ("png", None),
        ("png", "application/octet-stream"),
    ],
)  # fmt: skip
def test_declared_type_that_agrees_passes(kind: str, declared: str | None) -> None:
    assert reason(Sniffed(kind), declared) is None


@pytest.mark.parametrize(
    ("kind", "declared"),
    [("jpeg", "image/png"), ("png", "text/plain"), ("jpeg", "image/webp"), ("tiff", "image/unheard-of")],
)
def test_declared_type_that_contradicts_is_a_mismatch(kind: str, declared: str) -> None:
    assert reason(Sniffed(kind), declared) == Reason.MEDIA_MISMATCH


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("jpeg", "a.JPG"),
        ("jpeg", "b.tar.jpeg"),
        ("png", "noextension"),
        ("png", "odd.xyz"),
        ("tiff", "a.tif"),
        ("bmp", "."),
    ],
)
def test_file_name_that_agrees_or_says_nothing_passes(kind: str, name: str) -> None:
    assert reason(Sniffed(kind), None, name) is None


@pytest.mark.parametrize(("kind", "name"), [("jpeg", "a.png"), ("png", "page.html"), ("bmp", "a.webp")])
def test_file_name_that_contradicts_is_a_mismatch(kind: str, name: str) -> None:
    assert reason(Sniffed(kind), None, name) == Reason.MEDIA_MISMATCH


def test_unsupported_bytes_outrank_a_wrong_declaration() -> None:
    assert reason(Sniffed("gif"), "image/jpeg", "a.jpg") == Reason.MEDIA_UNSUPPORTED
