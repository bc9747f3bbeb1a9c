from __future__ import annotations

import io
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image
from pytorch_grad_cam.utils.image import scale_cam_image
from tests.engine.images import scene, shared

from camserve_server.engine.colormap import COLORMAPS, colours
from camserve_server.engine.png_writer import PngWriter
from camserve_server.engine.render import Drawing, Drawn, draw

WHOLE = (0.0, 0.0, 1.0, 1.0)


def random_map(height: int = 7, width: int = 9) -> np.ndarray[Any, Any]:
    return np.random.default_rng(5).random((height, width), np.float32) * 3


def drawn(cam: np.ndarray[Any, Any], **options: Any) -> tuple[Drawn, np.ndarray[Any, Any]]:
    fields = {
        "view": WHOLE, "width": 64, "height": 48, "format": "npy", "colormap": "jet", "overlay": False, "alpha": 0.5,
        "base_fd": None,
    }  # fmt: skip
    file = io.BytesIO()
    result = draw(Drawing(cam=cam, **(fields | options)), file)
    assert result.size == len(file.getvalue())
    file.seek(0)
    if (fields | options)["format"] == "npy":
        return result, np.load(file, allow_pickle=False)
    return result, np.asarray(Image.open(file, formats=["PNG"]))


@pytest.mark.parametrize(("width", "height"), [(64, 48), (224, 224), (5, 3), (1536, 700)])
def test_values_equal_those_of_pytorch_grad_cam(width: int, height: int) -> None:
    cam = random_map()
    _, got = drawn(cam, width=width, height=height)
    assert (got.dtype, got.shape, got.flags.c_contiguous) == (np.float32, (height, width), True)
    np.testing.assert_allclose(got, scale_cam_image(scale_cam_image(cam[None], (width, height)))[0], atol=2e-6)


def test_raw_range_is_kept() -> None:
    cam = random_map()
    result, _ = drawn(cam)
    assert (result.raw_min, result.raw_max) == (pytest.approx(cam.min()), pytest.approx(cam.max()))
    assert not result.degenerate


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-30, 4e5])
def test_constant_map_is_degenerate_and_drawn_as_zero(value: float) -> None:
    result, got = drawn(np.full((7, 7), value, np.float32))
    assert result.degenerate
    assert result.raw_max == pytest.approx(value)
    assert not got.any()


def test_map_with_a_tiny_spread_is_not_degenerate() -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[3, 3] = 1e-6
    result, got = drawn(cam)
    assert not result.degenerate
    assert got.max() > 0.5


def test_map_of_one_cell_is_degenerate() -> None:
    assert drawn(np.ones((1, 1), np.float32))[0].degenerate


def test_numbers_that_are_none_count_as_zero() -> None:
    cam = random_map()
    cam[0, 0], cam[1, 1] = np.nan, np.inf
    _, got = drawn(cam)
    assert np.isfinite(got).all()


def test_unseen_margins_of_a_crop_are_zero() -> None:
    _, got = drawn(random_map() + 1, view=(0.25, 0.0, 0.75, 1.0), width=80, height=40)
    assert not got[:, :20].any()
    assert not got[:, 60:].any()
    np.testing.assert_allclose(got[:, 20:60], drawn(random_map() + 1, width=40, height=40)[1], atol=1e-5)


def test_a_drawing_too_small_for_a_range_shows_the_value_on_the_maps_own() -> None:
    cam = random_map()
    _, got = drawn(cam, width=1, height=1)
    np.testing.assert_allclose(got, scale_cam_image(cam[None], (1, 1))[0], atol=2e-6)


def test_padding_of_the_input_is_not_drawn() -> None:
    cam = np.zeros((8, 8), np.float32)
    cam[2:6] = random_map(4, 8)
    _, got = drawn(cam, view=(0.0, -0.5, 1.0, 1.5), width=64, height=32)
    np.testing.assert_allclose(got, drawn(cam, width=64, height=64)[1][16:48], atol=1e-5)


@pytest.mark.parametrize("name", ["viridis", "turbo", "inferno", "magma", "plasma", "hot", "bone"])
def test_table_equals_that_of_matplotlib(name: str) -> None:
    reference = matplotlib.colormaps[name](np.arange(256))[:, :3] * 255
    assert np.abs(colours(name).astype(float) - np.rint(reference)).max() <= 1


def test_jet_equals_that_of_opencv() -> None:
    reference = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[None], cv2.COLORMAP_JET)[0, :, ::-1]
    assert np.abs(colours("jet").astype(int) - reference).max() <= 1


def test_every_map_has_256_colours() -> None:
    assert {"jet", "viridis", "turbo", "inferno", "magma", "plasma", "hot", "gray"} <= set(COLORMAPS)
    assert all(colours(name).shape == (256, 3) and colours(name).dtype == np.uint8 for name in COLORMAPS)


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_png_holds_the_coloured_map(colormap: str) -> None:
    _, values = drawn(random_map())
    _, got = drawn(random_map(), format="png", colormap=colormap)
    np.testing.assert_array_equal(got, colours(colormap)[(values * np.float32(255)).astype(np.uint8)])


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
def test_overlay_mixes_map_and_base(alpha: float) -> None:
    base = scene(640, 480)
    with shared(base.tobytes()) as buffer:
        options = {"format": "png", "width": 640, "height": 480}
        _, got = drawn(random_map(), overlay=True, alpha=alpha, base_fd=buffer.fd, **options)
    _, plain = drawn(random_map(), **options)
    assert np.abs(got - (alpha * plain + (1 - alpha) * base)).max() <= 1.01


def test_base_that_is_too_small_is_an_error() -> None:
    with shared(b"123") as buffer, pytest.raises(ValueError, match="smaller"):
        drawn(random_map(), format="png", overlay=True, base_fd=buffer.fd)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 500), (500, 3), (613, 411)])
def test_png_writer_gives_back_every_pixel(width: int, height: int) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    writer = PngWriter(file, width, height)
    for top in range(0, height, 100):
        writer.add(picture[top : top + 100])
    writer.finish()
    image = Image.open(file)
    image.load()
    assert (image.mode, image.info) == ("RGB", {})
    np.testing.assert_array_equal(np.asarray(image), picture)
