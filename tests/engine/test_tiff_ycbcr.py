"""TIFF whose colours are YCbCr, and colours of TIFF that are refused rather than taken for RGB."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from tests.engine.decoding import largest_difference, on_white, refusal
from tests.engine.images import Pixels, pillow, scene, stored, tiff, tiff_of_pieces

from camserve_server.base.errors import Reason

W, H = 97, 61
LAYOUTS = {"strip": {}, "strips": {"rowsperstrip": 7}, "tiles": {"tile": (32, 16)}}
HEADROOM = (15, 235, 128, 240, 128, 240)
REC_709 = (0.2126, 0.7152, 0.0722)


def ycbcr(width: int = W, height: int = H) -> Pixels:
    """Return the scene's Y, Cb and Cr by Rec. 601, as Pillow computes them."""
    return np.asarray(Image.fromarray(scene(width, height)).convert("YCbCr"))


def rationals(tag: int, *numbers: float) -> tuple[int, str, int, tuple[int, ...], bool]:
    """Return an extra tag for tifffile."""
    return tag, "2I", len(numbers), tuple(part for number in numbers for part in (round(number * 10_000), 10_000)), True


def shown(values: Pixels) -> Pixels:
    """Return the colours by Rec. 601, as Pillow computes them."""
    return np.asarray(Image.fromarray(values, "YCbCr").convert("RGB"))


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate", "packbits"])
def test_ycbcr_tiff_of_pillow_gives_the_picture(compression: str) -> None:
    data = pillow(Image.fromarray(scene(W, H)).convert("YCbCr"), "TIFF", compression=compression)
    assert largest_difference(data, shown(ycbcr())) <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("options", [{}, {"compression": "lzw", "predictor": True}, {"byteorder": ">"}], ids=str)
def test_ycbcr_tiff_of_any_layout_gives_the_picture(
    layout: str, planes: Any, depth: int, options: dict[str, Any]
) -> None:
    values = ycbcr() if depth == 8 else ycbcr().astype(np.uint16) * 257
    if planes == "separate":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    data = tiff(values, photometric="ycbcr", planarconfig=planes, **LAYOUTS[layout], **options)
    assert largest_difference(data, shown(ycbcr())) <= 1


@pytest.mark.parametrize("bits", [10, 12])
def test_ycbcr_tiff_of_odd_depth_has_references_of_that_depth(bits: int) -> None:
    full, middle = (1 << bits) - 1, 1 << (bits - 1)
    y, cb, cr = np.moveaxis(ycbcr().astype(float), 2, 0)
    scaled = np.dstack(
        [y * full / 255, (cb - 128) * (full - middle) / 127 + middle, (cr - 128) * (full - middle) / 127 + middle]
    )
    values = np.rint(scaled).astype(np.uint16).clip(0, full)
    references = rationals(532, 0, full, middle, full, middle, full)
    data = tiff(values, photometric="ycbcr", bitspersample=bits, extratags=[references], metadata=None)
    assert largest_difference(data, shown(ycbcr())) <= 2


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_fourth_sample_of_a_ycbcr_tiff_counts_as_declared(kind: str, layout: str) -> None:
    alpha = scene(W, H)[..., 1]
    colours = scene(W, H)
    expected = colours if kind == "unspecified" else on_white(colours, alpha)
    if kind == "assocalpha":
        colours = np.rint(colours * (alpha[..., None] / 255)).astype(np.uint8)
    values = np.dstack([np.asarray(Image.fromarray(colours).convert("YCbCr")), alpha])
    data = tiff(values, photometric="ycbcr", extrasamples=[kind], **LAYOUTS[layout])
    assert largest_difference(data, expected) <= 3


@pytest.mark.parametrize("coefficients", [(0.299, 0.587, 0.114), REC_709])
@pytest.mark.parametrize("references", [(0, 255, 128, 255, 128, 255), HEADROOM])
def test_ycbcr_tiff_is_converted_as_its_tags_say(
    coefficients: tuple[float, ...], references: tuple[float, ...]
) -> None:
    red, green, blue = np.moveaxis(scene(W, H).astype(float), 2, 0)
    y = coefficients[0] * red + coefficients[1] * green + coefficients[2] * blue
    cb, cr = (blue - y) / (2 - 2 * coefficients[2]), (red - y) / (2 - 2 * coefficients[0])
    black, white = references[::2], references[1::2]
    codes = [
        low + value * (high - low) / full
        for value, low, high, full in zip((y, cb, cr), black, white, (255, 127, 127), strict=True)
    ]
    values = np.rint(np.dstack(codes)).clip(0, 255).astype(np.uint8)
    tags = [rationals(529, *coefficients), rationals(532, *references)]
    assert largest_difference(tiff(values, photometric="ycbcr", extratags=tags), scene(W, H)) <= 3


@pytest.mark.parametrize(
    "tag",
    [
        rationals(529, 0.5, 0, 0.5), rationals(529, 0.299, 0.587), (529, "2I", 3, (1, 0) * 3, True),
        rationals(532, 0, 0, 128, 255, 128, 255), rationals(532, 0, 255),
    ],
)  # fmt: skip
def test_ycbcr_tiff_that_allows_no_conversion_cannot_be_decoded(tag: Any) -> None:
    assert refusal(tiff(ycbcr(), photometric="ycbcr", extratags=[tag])) == Reason.IMAGE_DECODING_FAILED


def blocks(values: Pixels, across: int, down: int) -> Pixels:
    """Return rows of blocks: the Y of `across` x `down` pixels, their mean Cb and Cr."""
    padded = np.pad(values, ((0, -values.shape[0] % down), (0, -values.shape[1] % across), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // down, padded.shape[1] // across
    parts = padded.reshape(rows, down, columns, across, 3).swapaxes(1, 2).reshape(rows, columns, -1, 3)
    chroma = np.rint(parts[..., 1:].mean(axis=2)).astype(np.uint8)
    return np.concatenate([parts[..., 0], chroma], axis=2)


def subsampled_tiff(
    values: Pixels, across: int, down: int, *, tile: int = 0, orientation: int = 1, compression: int = 8,
    named: bool = True, cut: int = 0,
) -> bytes:  # fmt: skip
    """Write in strips of 16 rows or in tiles, which no writer at hand does without JPEG."""
    height, width = values.shape[:2]
    pieces = []
    for top in range(0, height, tile or 16):
        for left in range(0, width, tile or width):
            piece = values[top : top + (tile or 16), left : left + (tile or width)]
            if tile:
                piece = np.pad(piece, ((0, tile - piece.shape[0]), (0, tile - piece.shape[1]), (0, 0)), mode="edge")
            packed = blocks(piece, across, down).tobytes()
            packed = packed[: len(packed) - cut]
            pieces.append(zlib.compress(packed) if compression == 8 else packed)
    tags = {256: [width], 257: [height], 258: [8, 8, 8], 259: [compression], 262: [6], 274: [orientation], 277: [3]}
    tags |= {322: [tile], 323: [tile]} if tile else {278: [16]}
    tags |= {530: [across, down]} if named else {}
    return tiff_of_pieces(pieces, tags, tiled=tile > 0)


@pytest.mark.parametrize(("across", "down"), [(2, 2), (2, 1), (1, 2), (4, 1), (4, 2)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_subsampled_ycbcr_tiff_gives_the_picture(across: int, down: int, orientation: int) -> None:
    values = np.asarray(Image.fromarray(stored(scene(W, H), orientation)).convert("YCbCr"))
    data = subsampled_tiff(values, across, down, orientation=orientation)
    if orientation == 1:
        assert np.abs(imagecodecs.tiff_decode(data, asrgb=True)[..., :3].astype(int) - scene(W, H)).max() <= 16
    assert largest_difference(data, scene(W, H)) <= 16


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("named", [True, False])
def test_ycbcr_tiff_is_subsampled_two_by_two_unless_it_says_otherwise(compression: int, named: bool) -> None:
    data = subsampled_tiff(ycbcr(), 2, 2, compression=compression, named=named)
    assert largest_difference(data, scene(W, H)) <= 16


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize("tile", [0, 32])
@pytest.mark.parametrize("across", [1, 2])
def test_ycbcr_tiff_whose_data_end_early_cannot_be_decoded(compression: int, tile: int, across: int) -> None:
    data = subsampled_tiff(ycbcr(), across, across, tile=tile, compression=compression, cut=40)
    assert refusal(data) == Reason.IMAGE_DECODING_FAILED


def test_subsampled_ycbcr_tiff_in_tiles_cannot_be_decoded() -> None:
    assert largest_difference(subsampled_tiff(ycbcr(), 1, 1, tile=32), shown(ycbcr())) <= 1
    assert refusal(subsampled_tiff(ycbcr(), 2, 2, tile=32)) == Reason.IMAGE_DECODING_FAILED


def test_ycbcr_tiff_that_says_subsampled_and_is_not_cannot_be_decoded() -> None:
    data = tiff(ycbcr(), photometric="ycbcr")
    for factors in ((2, 2), (2, 1), (3, 3), (0, 1)):
        said = data.replace(struct.pack("<HHIHH", 530, 3, 2, 1, 1), struct.pack("<HHIHH", 530, 3, 2, *factors))
        assert said != data
        assert refusal(said) == Reason.IMAGE_DECODING_FAILED


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (np.uint8, {"compression": "webp"}), (np.float32, {}), (np.int16, {}), (np.uint32, {}),
        (np.uint8, {"bitspersample": 4}), (np.uint8, {"planarconfig": "separate", "compression": "jpeg"}),
    ],
)  # fmt: skip
def test_ycbcr_tiff_that_nothing_here_converts_cannot_be_decoded(dtype: Any, options: dict[str, Any]) -> None:
    values = (ycbcr() >> 4 if "bitspersample" in options else ycbcr()).astype(dtype)
    if "planarconfig" in options:
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    data = tiff(values, photometric="ycbcr", metadata=None, **options)
    assert refusal(data) == Reason.IMAGE_DECODING_FAILED


COLOURS = {"mask": 4, "cielab": 8, "icclab": 9, "itulab": 10, "filters": 32803, "logl": 32844, "logluv": 32845,
           "linear_raw": 34892, "depth": 51177, "unknown": 999}  # fmt: skip


@pytest.mark.parametrize("photometric", COLOURS.values(), ids=COLOURS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}], ids=["strip", "tiles"])
def test_colours_that_nothing_here_converts_cannot_be_decoded(
    photometric: int, dtype: Any, samples: int, layout: dict[str, Any]
) -> None:
    values = scene(W, H).astype(dtype) if samples == 3 else scene(W, H)[..., 0].astype(dtype)
    written = 2 if samples == 3 else 1
    data = tiff(values, photometric="rgb" if samples == 3 else "minisblack", metadata=None, **layout)
    said = data.replace(struct.pack("<HHIHH", 262, 3, 1, written, 0), struct.pack("<HHIHH", 262, 3, 1, photometric, 0))
    assert said != data
    assert refusal(said) == Reason.IMAGE_DECODING_FAILED


def test_inks_that_are_fewer_than_cmyk_cannot_be_decoded() -> None:
    three = tiff(scene(), photometric="rgb", metadata=None)
    said = three.replace(struct.pack("<HHIHH", 262, 3, 1, 2, 0), struct.pack("<HHIHH", 262, 3, 1, 5, 0))
    assert said != three
    assert refusal(said) == Reason.IMAGE_DECODING_FAILED


def test_lab_tiff_of_pillow_cannot_be_decoded() -> None:
    assert refusal(pillow(Image.fromarray(scene()).convert("LAB"), "TIFF")) == Reason.IMAGE_DECODING_FAILED
