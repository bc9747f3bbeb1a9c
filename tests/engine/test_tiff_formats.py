"""TIFF of every layout, whose pixels must be those that were written."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests.engine.decoding import largest_difference, on_white, refusal
from tests.engine.images import grey, pack_bits, pillow, scene, tiff, tiff_of_pieces

from camserve_server.base.errors import Reason
from camserve_server.engine.formats import raster, tiff_raw

W, H = 97, 61


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "adobe_deflate", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}, {"rowsperstrip": 7}], ids=["strip", "tiles", "strips"])
def test_tiff_gives_the_picture(compression: str | None, layout: dict[str, Any]) -> None:
    data = tiff(scene(W, H), photometric="rgb", compression=compression, **layout)
    assert largest_difference(data, scene(W, H)) == 0


@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}], ids=["strip", "tiles"])
@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_separate_planes_gives_the_picture(layout: dict[str, Any], predictor: bool, dtype: Any) -> None:
    planes = scene(W, H).transpose(2, 0, 1).astype(dtype) * (1 if dtype == np.uint8 else 257)
    data = tiff(
        planes, photometric="rgb", planarconfig="separate", compression="lzw" if predictor else None,
        predictor=predictor, **layout,
    )  # fmt: skip
    assert largest_difference(data, scene(W, H)) == 0


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"byteorder": ">"}, {"bigtiff": True, "byteorder": ">"}])
def test_tiff_of_any_layout_gives_the_picture(options: dict[str, Any]) -> None:
    data = tiff(scene(W, H).astype(np.uint16) * 257, photometric="rgb", **options)
    assert largest_difference(data, scene(W, H)) == 0


@pytest.mark.parametrize("writer", ["tifffile", "pillow"])
def test_jpeg_in_tiff_gives_the_picture(writer: str) -> None:
    if writer == "tifffile":
        data = tiff(scene(128, 64), photometric="rgb", compression="jpeg", compressionargs={"level": 98}, tile=(64, 64))
    else:
        data = pillow(scene(128, 64), "TIFF", compression="jpeg", quality=98)
    assert largest_difference(data, scene(128, 64)) <= 16


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_fax_tiff_gives_the_picture(compression: str) -> None:
    bits = Image.fromarray(grey(W, H)).convert("1")
    data = pillow(bits, "TIFF", compression=compression)
    assert largest_difference(data, np.asarray(bits.convert("L"))) == 0


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_tiff_of_odd_depth_is_scaled_by_value(bits: int, photometric: str) -> None:
    full = (1 << bits) - 1
    values = np.linspace(0, full, W * H).reshape(H, W).round().astype(np.uint16)
    data = odd_depth_tiff(values, bits, photometric == "minisblack")
    shown = values if photometric == "minisblack" else full - values
    assert largest_difference(data, shown.astype(float) * 255 / full) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("tile", [(16, 16), (32, 48), (48, 32), (16, 64)], ids=str)
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_of_odd_depth_in_tiles_of_any_width_gives_the_picture(
    bits: int, tile: tuple[int, int], planes: Any
) -> None:
    values, shown = levels_of(scene(W, H), bits)
    if planes == "separate":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    data = tiff(values, photometric="rgb", planarconfig=planes, bitspersample=bits, tile=tile, metadata=None)
    assert largest_difference(data, shown) <= 1


@pytest.mark.parametrize(
    ("compression", "encode"),
    [(5, imagecodecs.lzw_encode), (8, zlib.compress), (32773, imagecodecs.packbits_encode)],
    ids=["lzw", "deflate", "packbits"],
)
@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("cut", [0, 30])
def test_tiff_of_odd_depth_in_compressed_tiles_gives_the_picture(
    compression: int, encode: Any, bits: int, cut: int
) -> None:
    values, shown = levels_of(grey(W, H), bits)
    padded = np.pad(values, ((0, -H % 16), (0, -W % 16)), mode="edge")
    tiles = padded.reshape(-1, 16, padded.shape[1] // 16, 16).swapaxes(1, 2).reshape(-1, 16, 16)
    packed = [pack_bits(tile, bits).tobytes() for tile in tiles]
    packed[-1] = packed[-1][: len(packed[-1]) - cut]
    tags = {256: [W], 257: [H], 258: [bits], 259: [compression], 262: [1], 277: [1], 322: [16], 323: [16]}
    data = tiff_of_pieces([encode(tile) for tile in packed], tags, tiled=True)
    if cut:
        assert refusal(data) == Reason.IMAGE_DECODING_FAILED
    else:
        assert largest_difference(data, shown) <= 1


# Beyond 8192 rows, libvips would take a time that grows with the square of what the file says of them.
@pytest.mark.parametrize(("width", "length"), [(8, 16), (16, 8), (1, 1), (16, 0), (16, 8208)])
def test_tiff_of_odd_depth_in_tiles_of_other_than_16_to_8192_rows_cannot_be_decoded(width: int, length: int) -> None:
    tiles = [bytes(length * -(-width * 12 // 8))] * (-(-64 // width) * -(-64 // max(1, length)))
    tags = {256: [64], 257: [64], 258: [12], 259: [1], 262: [1], 277: [1], 322: [width], 323: [length]}
    assert refusal(tiff_of_pieces(tiles, tags, tiled=True)) == Reason.IMAGE_DECODING_FAILED


def test_tiff_of_odd_depth_is_read_in_bands_and_tiles_of_any_number(monkeypatch: pytest.MonkeyPatch) -> None:
    values, shown = levels_of(scene(300, 200), 12)
    data = tiff(values, photometric="rgb", bitspersample=12, tile=(48, 16), metadata=None)
    for band_bytes in (1, 50_000):
        monkeypatch.setattr(raster, "BAND_BYTES", band_bytes)
        for tile_bytes in (1, 7_000, 1 << 20):
            monkeypatch.setattr(tiff_raw, "_FETCH_BYTES", tile_bytes)
            assert largest_difference(data, shown) <= 1


def levels_of(picture: np.ndarray[Any, Any], bits: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a picture in fewer or more bits, and what is left of it in 0 to 255."""
    full = (1 << bits) - 1
    values = (picture.astype(np.uint32) * full + 127) // 255
    return values.astype(np.uint8 if bits <= 8 else np.uint16), values * (255.0 / full)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tiff_of_differences_of_odd_depth_is_scaled_by_value(bits: int) -> None:
    full = (1 << bits) - 1
    values = (grey(W, H).astype(np.uint32) * full // 255).astype(np.uint16)
    assert largest_difference(odd_depth_tiff(values, bits, True, differences=True), grey(W, H)) <= 1


def odd_depth_tiff(values: np.ndarray[Any, Any], bits: int, black_is_zero: bool, *, differences: bool = False) -> bytes:
    height, width = values.shape
    if differences:
        values = np.diff(values, axis=1, prepend=values.dtype.type(0))
    packed = pack_bits(values, bits).tobytes()
    packed = zlib.compress(packed) if differences else packed
    entries = [(256, width), (257, height), (258, bits), (259, 8 if differences else 1), (262, int(black_is_zero)),
               (273, 8), (277, 1), (278, height), (279, len(packed)), (317, 2 if differences else 1)]  # fmt: skip
    packed += b"\0" * (len(packed) % 2)
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + table + b"\0\0\0\0"


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("white", [1, 255, 65535])
def test_float_tiff_is_scaled_by_value(dtype: str, white: int) -> None:
    if dtype == "f2" and white == 65535:
        white = 65504
    values = (np.linspace(0, 1, W * H).reshape(H, W) * white).astype(dtype)
    assert largest_difference(tiff(values), np.rint(values.astype(float) * 255 / max(white, 1))) <= 1


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_float_tiff_with_predictor_and_tiles_gives_the_picture(dtype: str) -> None:
    values = (scene(W, H) / 255).astype(dtype)
    data = tiff(values, photometric="rgb", compression="deflate", predictor=True, tile=(32, 32))
    assert largest_difference(data, scene(W, H)) <= 1


@pytest.mark.parametrize("dtype", ["f8", "u8"])
@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("width", [336, 352, 1024])
def test_tiff_of_64_bits_in_wide_tiles_gives_the_picture(dtype: str, compression: str | None, width: int) -> None:
    data = tiff(scene(600, 300).astype(dtype), photometric="rgb", compression=compression, tile=(64, width))
    assert largest_difference(data, scene(600, 300)) <= 1


@pytest.mark.parametrize("layout", [{}, {"tile": (32, 32)}, {"rowsperstrip": 7}], ids=["strip", "tiles", "strips"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        ("u2", 257), ("u4", 257), ("u8", 257), ("i2", 128), ("i4", 257), ("i8", 257),
        ("f2", 1 / 255), ("f4", 1 / 255), ("f8", 1 / 255),
    ],
)  # fmt: skip
def test_tiff_of_differences_gives_the_picture(
    dtype: str, factor: float, byteorder: Any, planes: Any, layout: dict[str, Any]
) -> None:
    values = (scene(W, H) * np.float64(factor)).astype(dtype)
    if planes == "separate":
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
    # tifffile writes differences of integers only; those of floats are differences of their bits.
    bits = values.view(f"i{values.itemsize}") if values.dtype.kind == "f" else values
    file = io.BytesIO(
        tiff(
            bits, photometric="rgb", planarconfig=planes, compression="lzw", predictor=2, byteorder=byteorder, **layout
        )
    )
    if values.dtype.kind == "f":
        with tifffile.TiffFile(file, mode="r+") as written:
            written.pages.first.tags["SampleFormat"].overwrite((3, 3, 3))
    file.seek(0)
    np.testing.assert_array_equal(tifffile.imread(file), values)
    assert largest_difference(file.getvalue(), scene(W, H)) <= 1


def test_not_a_number_and_negative_values_are_black() -> None:
    values = (grey(W, H) / 255).astype(np.float32)
    values[0, :4] = (np.nan, -5.0, np.inf, -np.inf)
    expected = grey(W, H).astype(int)
    expected[0, :4] = (0, 0, 255, 0)
    assert largest_difference(tiff(values), expected) <= 1


@pytest.mark.parametrize(
    ("dtype", "factor"), [("u4", 1), ("u4", 257), ("u4", 16843009), ("i4", 1), ("i2", 1), ("i2", 128), ("u8", 257)]
)
def test_wide_integer_tiff_is_scaled_by_value(dtype: str, factor: int) -> None:
    values = grey(W, H).astype(np.int64) * factor
    assert largest_difference(tiff(values.astype(dtype)), grey(W, H)) <= 1


def test_palette_tiff_gives_the_picture() -> None:
    palette = scene(16, 16).reshape(256, 3)
    data = tiff(grey(W, H), photometric="palette", colormap=(palette.T.astype(np.uint16) * 257))
    assert largest_difference(data, palette[grey(W, H)]) <= 1


def test_cmyk_tiff_gives_the_picture() -> None:
    cmyk = Image.fromarray(scene(W, H)).convert("CMYK")
    assert largest_difference(tiff(np.asarray(cmyk), photometric="separated"), np.asarray(cmyk.convert("RGB"))) <= 1


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha", "unspecified"])
def test_fourth_sample_of_a_tiff_counts_as_declared(kind: str) -> None:
    alpha = scene(W, H)[..., 1]
    colours = scene(W, H)
    expected = on_white(colours, alpha)
    if kind == "assocalpha":
        colours = np.rint(colours * (alpha[..., None] / 255)).astype(np.uint8)
    if kind == "unspecified":
        expected = colours
    data = tiff(np.dstack([colours, alpha]), photometric="rgb", extrasamples=[kind])
    assert largest_difference(data, expected) <= 2


@pytest.mark.parametrize("layout", [{}, {"tile": (64, 64)}], ids=["strips", "tiles"])
def test_tiff_with_private_tags_gives_the_picture(layout: dict[str, Any]) -> None:
    private = [(65000, "s", 0, "private", True), (42112, "s", 0, "<x/>", True), (57160, "B", 3, b"abc", True)]
    data = tiff(scene(W, H), photometric="rgb", extratags=private, **layout)
    assert largest_difference(data, scene(W, H)) == 0


@pytest.mark.parametrize("subifds", [False, True])
@pytest.mark.parametrize("flagged", [False, True])
def test_pyramid_is_read_as_its_full_page(tmp_path: Path, subifds: bool, flagged: bool) -> None:
    path = tmp_path / "pyramid.tif"
    full = scene(256, 192)
    with tifffile.TiffWriter(path) as writer:
        writer.write(full, photometric="rgb", tile=(64, 64), subifds=2 if subifds else 0)
        for level in (2, 4):
            kind = 1 if flagged or subifds else 0
            writer.write(255 - full[::level, ::level], photometric="rgb", tile=(64, 64), subfiletype=kind)
    assert largest_difference(path.read_bytes(), full) == 0


def test_thumbnail_before_the_full_page_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "thumbnail.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((15, 24, 3), np.uint8), photometric="rgb", subfiletype=1)
        writer.write(scene(W, H), photometric="rgb")
    assert largest_difference(path.read_bytes(), scene(W, H)) == 0
