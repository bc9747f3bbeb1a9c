from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.engine.decoding import LIMITS, decoded, pixels
from tests.engine.images import ORIENT, exif_block, insert_png_chunk, pillow, png_chunk, scene, stored, tiff

from camserve_server.engine.formats import bmp, png, raster
from camserve_server.engine.input_spec import InputSpec

BIG = dataclasses.replace(LIMITS, max_side_px=16384, max_pixels=1 << 26)


def rotated(picture: np.ndarray[Any, Any], orientation: int, kind: str) -> bytes:
    kept = stored(picture, orientation if orientation in ORIENT else 1)
    if kind == "PNG":
        return insert_png_chunk(pillow(kept, "PNG", compress_level=1), b"eXIf", exif_block(orientation))
    if kind == "TIFF":
        return tiff(kept, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    return pillow(kept, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif_block(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_rotated_file_gives_exactly_the_pixels_of_an_upright_one(
    orientation: int, kind: str, fit: Literal["crop", "pad", "squash"]
) -> None:
    picture, spec = scene(331, 207), InputSpec(32, 32, fit)
    upright = decoded(rotated(picture, 1, kind), spec, base_side="input")
    turned = decoded(rotated(picture, orientation, kind), spec, base_side="input")
    assert (turned.width, turned.height) == (331, 207)
    assert turned.view == upright.view
    np.testing.assert_array_equal(np.asarray(turned.pixels), np.asarray(upright.pixels))
    np.testing.assert_array_equal(np.asarray(turned.base), picture)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_orientation_that_there_is_not_leaves_the_picture_as_it_is(orientation: int, kind: str) -> None:
    np.testing.assert_array_equal(
        pixels(rotated(scene(), orientation, kind), 97, 61), pixels(rotated(scene(), 1, kind), 97, 61)
    )


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("kind", ["H", "I"])
def test_tiff_of_any_layout_may_have_an_orientation_that_there_is_not(options: dict[str, Any], kind: str) -> None:
    data = tiff(scene(), photometric="rgb", extratags=[(274, kind, 1, 0, True)], **options)
    np.testing.assert_array_equal(pixels(data, 97, 61), scene())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_of_two_orientations_the_first_counts(kind: str) -> None:
    data, block = rotated(scene(), 1, kind), exif_block(6)
    if kind == "PNG":
        at = data.index(b"IDAT") - 4
        second = png_chunk(b"eXIf", block)
    else:
        at = data.index(b"\xff\xdb")
        second = b"\xff\xe1" + (len(block) + 8).to_bytes(2, "big") + b"Exif\0\0" + block
    np.testing.assert_array_equal(pixels(data[:at] + second + data[at:], 97, 61), pixels(data, 97, 61))


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every picture a large one, read in many bands."""
    monkeypatch.setattr(raster, "BAND_BYTES", 40_000)
    monkeypatch.setattr(png, "_PILLOW_PIXELS", 0)
    monkeypatch.setattr(bmp, "_WHOLE_PIXELS", 0)


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_large_rotated_file_gives_exactly_the_pixels_of_an_upright_one(orientation: int, kind: str) -> None:
    picture, spec = scene(701, 509), InputSpec(32, 32, "pad")
    expected = decoded(rotated(picture, 1, kind), spec)
    got = decoded(rotated(picture, orientation, kind), spec)
    np.testing.assert_array_equal(np.asarray(got.pixels), np.asarray(expected.pixels))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_rotated_jpeg_gives_nearly_the_pixels_of_an_upright_one(orientation: int) -> None:
    picture, spec = scene(333, 205), InputSpec(20, 20, "pad")
    expected = np.asarray(decoded(rotated(picture, 1, "JPEG"), spec).pixels).astype(int)
    got = np.asarray(decoded(rotated(picture, orientation, "JPEG"), spec).pixels).astype(int)
    assert np.abs(got - expected).max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_same_picture_in_any_format_gives_the_same_input(kind: str) -> None:
    picture = scene(700, 500)
    options = {"quality": 95} if kind == "JPEG" else {}
    got = np.asarray(decoded(pillow(picture, kind, **options), InputSpec(64, 64, "crop", 73)).pixels)
    reference = Image.fromarray(picture).resize((102, 73), Image.Resampling.BILINEAR).crop((19, 4, 83, 68))
    assert np.abs(got.astype(int) - np.asarray(reference).astype(int)).max() <= 4


@pytest.mark.usefixtures("small_bands")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_large_picture_read_in_bands_equals_the_whole_one(kind: str, mode: str) -> None:
    picture = Image.fromarray(scene(1003, 801))
    picture = picture.quantize(32) if mode == "P" else picture.convert(mode)
    got = np.asarray(decoded(pillow(picture, kind), InputSpec(50, 40, "squash")).pixels)
    reference = np.asarray(picture.convert("RGB").resize((50, 40), Image.Resampling.BILINEAR))
    assert np.abs(got.astype(int) - reference.astype(int)).max() <= (12 if mode == "1" else 4)


@pytest.mark.usefixtures("small_bands")
def test_large_png_with_alpha_is_composited_on_white() -> None:
    picture = Image.fromarray(np.dstack([scene(403, 301), scene(403, 301)[..., 1]]))
    got = np.asarray(decoded(pillow(picture, "PNG"), InputSpec(50, 40, "squash")).pixels)
    white = Image.new("RGBA", picture.size, "white")
    reference = Image.alpha_composite(white, picture).convert("RGB").resize((50, 40), Image.Resampling.BILINEAR)
    assert np.abs(got.astype(int) - np.asarray(reference)).max() <= 3


def test_crop_sees_the_middle() -> None:
    result = decoded(pillow(scene(400, 200), "PNG"), InputSpec(100, 100, "crop"))
    assert result.view == (0.25, 0.0, 0.75, 1.0)


def test_crop_of_a_larger_resize_sees_less() -> None:
    result = decoded(pillow(scene(400, 200), "PNG"), InputSpec(100, 50, "crop", 200))
    assert result.view == pytest.approx((0.375, 0.375, 0.625, 0.625))


def test_crop_wider_than_the_resized_picture_has_margins() -> None:
    result = decoded(pillow(scene(100, 100), "PNG"), InputSpec(80, 40, "crop", 40, pad_color=(1, 2, 3)))
    assert result.view == (-0.5, 0.0, 1.5, 1.0)
    assert np.asarray(result.pixels)[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("width", "height"), [(300, 100), (100, 300), (77, 31)])
def test_pad_shows_the_whole_picture(width: int, height: int) -> None:
    spec = InputSpec(60, 60, "pad", pad_color=(9, 8, 7))
    result = decoded(pillow(scene(width, height), "PNG"), spec)
    x0, y0, x1, y1 = result.view
    assert min(x0, y0) <= 0.0
    assert max(x1, y1) >= 1.0
    assert (x1 - x0) * width == pytest.approx((y1 - y0) * height, rel=0.03)
    shown = np.asarray(result.pixels)
    left, top = round(-x0 / (x1 - x0) * 60), round(-y0 / (y1 - y0) * 60)
    inner = shown[top : 60 - top or None, left : 60 - left or None]
    reference = Image.fromarray(scene(width, height)).resize(inner.shape[1::-1], Image.Resampling.BILINEAR)
    assert np.abs(inner.astype(int) - np.asarray(reference)).max() <= 3
    assert shown[-1, 0].tolist() == [9, 8, 7] or shown[0, -1].tolist() == [9, 8, 7]


def test_squash_shows_everything() -> None:
    assert decoded(pillow(scene(300, 100), "PNG"), InputSpec(50, 50, "squash")).view == (0.0, 0.0, 1.0, 1.0)


def test_longest_side_shrinks_before_anything_else() -> None:
    data = pillow(scene(400, 200), "PNG")
    result = decoded(data, InputSpec(64, 64, "squash"), longest_side_px=16, base_side="input")
    assert (result.width, result.height, result.draw_width, result.draw_height) == (400, 200, 16, 8)
    assert result.base is not None
    assert result.base.size == (16, 8)
    small = Image.fromarray(scene(400, 200)).resize((16, 8), Image.Resampling.BILINEAR)
    reference = np.asarray(small.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(np.asarray(result.pixels) - reference).max() <= 3


def test_longest_side_never_enlarges() -> None:
    result = decoded(pillow(scene(40, 20), "PNG"), InputSpec(8, 8), longest_side_px=1000)
    assert (result.draw_width, result.draw_height) == (40, 20)


def test_base_has_the_size_that_was_asked_for() -> None:
    result = decoded(pillow(scene(400, 200), "JPEG"), InputSpec(8, 8), base_side=(123, 45))
    assert result.base is not None
    assert result.base.size == (123, 45)


def test_base_of_a_jpeg_is_as_sharp_as_the_picture() -> None:
    picture = scene(1600, 1200)
    result = decoded(pillow(picture, "JPEG", quality=95, subsampling=0), InputSpec(8, 8), base_side=(800, 600))
    reference = np.asarray(Image.fromarray(picture).resize((800, 600), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(np.asarray(result.base) - reference).max() <= 8


def test_drawing_is_capped_at_4096() -> None:
    result = decoded(pillow(np.zeros((100, 8192), np.uint8), "PNG"), InputSpec(8, 8), limits=BIG)
    assert (result.draw_width, result.draw_height) == (4096, 50)


def test_sha256_is_that_of_the_file() -> None:
    data = pillow(scene(), "PNG")
    assert decoded(data, InputSpec(8, 8)).sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("side", [1, 2, 3, 7, 9, 17])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
def test_tiny_pictures_decode(side: int, kind: str) -> None:
    assert pixels(pillow(scene(side, side), kind), 32, 32).shape == (32, 32, 3)


@pytest.mark.usefixtures("small_bands")
def test_tiled_tiff_larger_than_a_band_equals_the_whole_one(tmp_path: Path) -> None:
    picture = scene(900, 700)
    path = tmp_path / "tiles.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(64, 64), compression="deflate")
    got = np.asarray(decoded(path.read_bytes(), InputSpec(45, 35, "squash")).pixels).astype(int)
    reference = np.asarray(Image.fromarray(picture).resize((45, 35), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(got - reference).max() <= 3
