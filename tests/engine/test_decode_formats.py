"""JPEG, PNG and BMP, whose pixels must be those that were written."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms
from tests.engine.decoding import largest_difference, on_white
from tests.engine.images import bmp, grey, insert_png_chunk, pack_bits, pillow, png, png_chunk, scene

W, H = 97, 61


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 95, "progressive": True, "subsampling": 0},
        {"quality": 95, "subsampling": 2, "restart_marker_rows": 1},
    ],
    ids=["baseline", "progressive", "restarts"],
)
def test_jpeg_gives_the_picture(options: dict[str, Any]) -> None:
    assert largest_difference(pillow(scene(W, H), "JPEG", **options), scene(W, H)) <= 12


def test_grey_jpeg_gives_the_picture() -> None:
    assert largest_difference(pillow(grey(W, H), "JPEG", quality=95), grey(W, H)) <= 8


def test_cmyk_jpeg_of_adobe_is_not_inverted() -> None:
    cmyk = Image.fromarray(scene(W, H)).convert("CMYK")
    assert largest_difference(pillow(cmyk, "JPEG", quality=98), np.asarray(cmyk.convert("RGB"))) <= 16


def test_ycck_jpeg_is_not_inverted() -> None:
    cmyk = Image.fromarray(scene(W, H)).convert("CMYK")
    inverted = 255 - np.asarray(cmyk)
    data = imagecodecs.jpeg8_encode(inverted, level=98, colorspace="CMYK", outcolorspace="YCCK")
    assert largest_difference(data, np.asarray(cmyk.convert("RGB"))) <= 24


def test_mpo_is_read_as_its_first_picture() -> None:
    first, second = Image.fromarray(scene(W, H)), Image.fromarray(255 - scene(W, H))
    data = pillow(first, "MPO", save_all=True, append_images=[second], quality=95, subsampling=0)
    assert largest_difference(data, scene(W, H)) <= 12


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_png_of_any_depth_gives_the_picture(depth: int) -> None:
    values = grey(W, H) >> (8 - depth)
    expected = values.astype(int) * 255 // ((1 << depth) - 1)
    assert largest_difference(png(pack_bits(values, depth), depth, 0, width=W), expected) == 0


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_grey_of_a_shallow_png_is_white(depth: int) -> None:
    values = grey(W, H) >> (8 - depth)
    key = int(values[0, 0])
    expected = np.where(values == key, 255, values.astype(int) * 255 // ((1 << depth) - 1))
    data = png(pack_bits(values, depth), depth, 0, png_chunk(b"tRNS", struct.pack(">H", key)), width=W)
    assert largest_difference(data, expected) == 0


def test_sixteen_bit_grey_png_is_scaled_by_value() -> None:
    deep = np.linspace(0, 65535, W * H).reshape(H, W).astype(np.uint16)
    assert largest_difference(png(deep, 16, 0), np.rint(deep / 257)) <= 1


def test_sixteen_bit_grey_png_with_alpha_is_composited() -> None:
    deep = np.stack([grey(W, H).astype(np.uint16) * 257, scene(W, H)[..., 1].astype(np.uint16) * 257], axis=-1)
    expected = on_white(grey(W, H)[..., None], scene(W, H)[..., 1])[..., 0]
    assert largest_difference(png(deep, 16, 4), expected) <= 1


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_colour_png_is_scaled_by_value(channels: int) -> None:
    deep = np.dstack([scene(W, H), grey(W, H)])[..., :channels].astype(np.uint16) * 257
    expected = scene(W, H) if channels == 3 else on_white(scene(W, H), grey(W, H))
    assert largest_difference(png(deep, 16, 2 if channels == 3 else 6), expected) <= 1


def test_transparent_colour_of_a_sixteen_bit_png_compares_all_bits() -> None:
    deep = scene(W, H).astype(np.uint16) * 257
    deep[0, 0] = (0x1234, 0x1234, 0x1234)
    deep[0, 1] = (0x1235, 0x1234, 0x1234)
    expected = np.rint(deep / 257)
    expected[0, 0] = 255
    data = png(deep, 16, 2, png_chunk(b"tRNS", struct.pack(">3H", *[0x1234] * 3)))
    assert largest_difference(data, expected) <= 1


def test_transparent_colour_of_a_png_is_white() -> None:
    picture = scene(W, H).copy()
    picture[5:9, 5:9] = (1, 2, 3)
    expected = picture.copy()
    expected[5:9, 5:9] = 255
    data = png(picture, 8, 2, png_chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    assert largest_difference(data, expected) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_png_with_alpha_is_composited_on_white(mode: str) -> None:
    alpha = scene(W, H)[..., 1]
    if mode == "RGBA":
        data, expected = pillow(np.dstack([scene(W, H), alpha]), "PNG"), on_white(scene(W, H), alpha)
    elif mode == "LA":
        data = pillow(Image.merge("LA", [Image.fromarray(grey(W, H)), Image.fromarray(alpha)]), "PNG")
        expected = on_white(grey(W, H)[..., None], alpha)[..., 0]
    else:
        palette = scene(16, 16).reshape(256, 3)
        index = grey(W, H)
        data = png(index, 8, 3, png_chunk(b"PLTE", palette.tobytes()), png_chunk(b"tRNS", bytes(range(256))))
        expected = on_white(palette[index], index)
    assert largest_difference(data, expected) <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_png_of_any_depth_gives_the_picture(depth: int) -> None:
    palette = scene(16, 16).reshape(256, 3)[: 1 << depth]
    index = grey(W, H) >> (8 - depth)
    data = png(pack_bits(index, depth), depth, 3, png_chunk(b"PLTE", palette.tobytes()), width=W)
    assert largest_difference(data, palette[index]) == 0


def test_interlaced_png_gives_the_picture() -> None:
    rgb = scene(W, H)
    data = imagecodecs.png_encode(rgb, level=1)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    packed = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in rgb[y::dy, x::dx] if row.size)
    header = data[16:28] + b"\x01"
    interlaced = (
        data[:8] + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(packed)) + png_chunk(b"IEND", b"")
    )
    assert largest_difference(interlaced, rgb) == 0


def test_sixteen_bit_png_of_opencv_gives_the_picture() -> None:
    ok, data = cv2.imencode(".png", scene(W, H)[..., ::-1].astype(np.uint16) * 257)
    assert ok
    assert largest_difference(data.tobytes(), scene(W, H)) <= 1


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_palette_bmp_gives_the_picture(bits: int) -> None:
    palette = scene(16, 16).reshape(256, 3)[: 1 << bits]
    index = grey(W, H) >> (8 - bits)
    assert largest_difference(bmp(index, bits, palette=palette), palette[index]) == 0


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("top_down", [False, True])
def test_colour_bmp_gives_the_picture(bits: int, top_down: bool) -> None:
    assert largest_difference(bmp(scene(W, H), bits, top_down=top_down), scene(W, H)) == 0


@pytest.mark.parametrize("green_bits", [5, 6])
def test_sixteen_bit_bmp_gives_the_picture(green_bits: int) -> None:
    red, green, blue = (scene(W, H)[..., i].astype(np.uint16) for i in range(3))
    packed = (red >> 3 << (5 + green_bits)) | (green >> (8 - green_bits) << 5) | (blue >> 3)
    masks = b"" if green_bits == 5 else struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    assert largest_difference(bmp(packed, 16, masks=masks), scene(W, H)) <= 8


@pytest.mark.parametrize("bits", [4, 8])
def test_run_length_bmp_gives_the_picture(bits: int) -> None:
    palette = scene(16, 16).reshape(256, 3)[: 1 << bits]
    index = np.repeat(np.arange(H)[:, None] % (1 << bits), W, axis=1).astype(np.uint8)
    runs = b"".join(bytes([W, v * 0x11 if bits == 4 else v, 0, 0]) for v in index[::-1, 0].tolist()) + b"\0\1"
    plain = bmp(index, bits, palette=palette)
    offset = struct.unpack_from("<I", plain, 10)[0]
    data = plain[:30] + struct.pack("<II", 2 if bits == 4 else 1, len(runs)) + plain[38:offset] + runs
    assert largest_difference(data, palette[index]) == 0


def profile(name: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(name)).tobytes()  # type: ignore[arg-type]


def swapped_profile() -> bytes:
    """Return sRGB with red and blue exchanged, so that a conversion cannot be overlooked."""
    data = profile("sRGB")
    return data.replace(b"rXYZ", b"tmp1").replace(b"bXYZ", b"rXYZ").replace(b"tmp1", b"bXYZ")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_icc_profile_is_converted_to_srgb(kind: str) -> None:
    options = {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    data = pillow(scene(W, H), kind, icc_profile=swapped_profile(), **options)
    assert largest_difference(data, scene(W, H)[..., ::-1]) <= 10


@pytest.mark.parametrize("broken", [b"not a profile", b"", b"\0" * 5_000_000], ids=["junk", "empty", "huge"])
def test_unusable_profile_is_ignored(broken: bytes) -> None:
    data = pillow(scene(W, H), "JPEG", quality=95, subsampling=0, icc_profile=broken)
    assert largest_difference(data, scene(W, H)) <= 12


def test_of_two_profiles_of_a_png_the_first_counts() -> None:
    data = pillow(scene(W, H), "PNG", icc_profile=profile("sRGB"))
    second = png_chunk(b"iCCP", b"second\0\0" + zlib.compress(swapped_profile()))
    at = data.index(b"IDAT") - 4
    assert largest_difference(data[:at] + second + data[at:], scene(W, H)) <= 1


def test_profile_of_another_colour_space_is_ignored() -> None:
    data = pillow(grey(W, H), "PNG", icc_profile=profile("sRGB"))
    assert largest_difference(data, grey(W, H)) == 0


LONG_TEXT = zlib.compress(bytes(3_000_000))


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"Comment\0hello"),
        (b"zTXt", b"Comment\0\0" + LONG_TEXT),
        (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG_TEXT),
        (b"iTXt", b"no text at all"),
    ],
)
def test_text_beside_the_picture_does_not_matter(kind: bytes, body: bytes) -> None:
    data = insert_png_chunk(pillow(scene(W, H), "PNG"), kind, body)
    assert largest_difference(data, scene(W, H)) == 0
