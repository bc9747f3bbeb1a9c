"""Small valid images of every format and shape that is read, for a fuzzer to begin with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image
from tests.engine.images import bmp, exif_block, grey, insert_png_chunk, pillow, scene, tiff
from tests.engine.test_bmp_rle import rle

W, H = 23, 17


def seeds() -> Iterator[bytes]:
    """Yields files of some hundred bytes."""
    picture = scene(W, H)
    yield pillow(picture, "JPEG", quality=60)
    yield pillow(picture, "JPEG", quality=60, progressive=True)
    yield pillow(picture, "JPEG", exif=b"Exif\0\0" + exif_block(6))
    yield pillow(grey(W, H), "JPEG", restart_marker_blocks=1)
    yield pillow(Image.fromarray(picture).convert("CMYK"), "JPEG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
        yield pillow(Image.fromarray(picture).convert(mode), "PNG")
    yield pillow(Image.fromarray(grey(W, H).astype(np.uint16) * 257), "PNG")
    yield insert_png_chunk(pillow(picture, "PNG"), b"zTXt", b"Comment\0\0junk")
    yield insert_png_chunk(pillow(picture, "PNG"), b"eXIf", exif_block(3))
    yield pillow(picture, "BMP")
    yield pillow(Image.fromarray(picture).convert("P"), "BMP")
    yield bmp(picture, 24)
    yield bmp(picture, 32, top_down=True)
    yield bmp(grey(W, H).astype(np.uint16), 16)
    yield rle(7, 3, b"\x05\x01\0\0\0\x02\x01\0\0\x03abc\0\x07\x02\0\x01")
    yield rle(7, 3, b"\x05\x12\0\0\0\x02\x01\0\0\x03\x12\x30\x07\x02\0\x01", bits=4)
    for compression in (None, "lzw", "deflate", "packbits"):
        yield tiff(picture, compression=compression)
    yield tiff(picture, tile=(16, 16), compression="deflate")
    yield tiff(picture, planarconfig="separate")
    yield tiff(grey(W, H).astype(np.uint16) * 257)
    yield tiff(picture, byteorder=">")
    yield tiff(picture, bigtiff=True)
