"""Draws the pictures that the kit sends; needs Pillow, tifffile and imagecodecs. Run it to make them again.

Encoders differ between releases, so no test compares the files: what counts is that each is what its name says.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from PIL import Image, ImageDraw

OUT = Path(__file__).parent / "src" / "camserve_conformance" / "pictures"
WIDTH, HEIGHT = 120, 90
TRUNCATED_BYTES = 500
TURNED_CLOCKWISE = 6  # EXIF orientation: to be shown, turn by 90 degrees clockwise


def star() -> Image.Image:
    """A filled star on a plain ground, drawn large and made smaller."""
    scale = 4
    large = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), (205, 214, 222))
    centre = (WIDTH * scale / 2, HEIGHT * scale / 2)
    corners = []
    for corner in range(10):
        radius = (38 if corner % 2 == 0 else 15) * scale
        angle = math.pi * corner / 5 - math.pi / 2
        corners.append((centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle)))
    ImageDraw.Draw(large).polygon(corners, fill=(190, 40, 50))
    return large.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def main() -> None:
    """Writes every picture."""
    drawn = star()
    pixels = np.asarray(drawn)
    grey = np.asarray(drawn.convert("L"))
    wide = pixels.astype(np.uint16) * 257

    drawn.save(OUT / "star.png", optimize=True)
    drawn.convert("L").save(OUT / "grey.png")
    drawn.convert("L").convert("1", dither=Image.Dither.NONE).save(OUT / "bilevel.png")
    drawn.quantize(32).save(OUT / "palette.png")
    (OUT / "deep.png").write_bytes(imagecodecs.png_encode(wide))
    (OUT / "deep_grey.png").write_bytes(imagecodecs.png_encode(grey.astype(np.uint16) * 257))
    # The ground is transparent black, which is white once it is composited.
    ground = (np.abs(pixels.astype(int) - (205, 214, 222)).sum(axis=2) < 12)[..., None]
    alpha = np.concatenate([np.where(ground, 0, pixels), np.where(ground, 0, 255)], axis=2).astype(np.uint8)
    Image.fromarray(alpha, "RGBA").save(OUT / "alpha.png")
    drawn.save(OUT / "baseline.jpg", quality=92)
    drawn.save(OUT / "progressive.jpg", quality=92, progressive=True)
    drawn.convert("CMYK").save(OUT / "cmyk.jpg", quality=92)
    drawn.save(OUT / "several.mpo.jpg", "MPO", save_all=True, append_images=[drawn], quality=92)
    exif = Image.Exif()
    exif[0x0112] = TURNED_CLOCKWISE
    drawn.transpose(Image.Transpose.ROTATE_90).save(OUT / "turned.jpg", quality=92, exif=exif)
    drawn.save(OUT / "star.bmp")
    tifffile.imwrite(OUT / "strips.tif", pixels, photometric="rgb", compression="zlib", rowsperstrip=16)
    tifffile.imwrite(OUT / "tiles.tif", pixels, photometric="rgb", compression="zlib", tile=(64, 64))
    tifffile.imwrite(OUT / "deep.tif", wide, photometric="rgb", compression="zlib")
    tifffile.imwrite(OUT / "float.tif", (grey / 255).astype(np.float32), photometric="minisblack", compression="zlib")
    with tifffile.TiffWriter(OUT / "pyramid.tif") as writer:
        writer.write(pixels, photometric="rgb", compression="zlib", tile=(64, 64), subifds=1)
        writer.write(pixels[::2, ::2], photometric="rgb", compression="zlib", tile=(32, 32), subfiletype=1)
    other = drawn.rotate(20)
    with tifffile.TiffWriter(OUT / "pages.tif") as writer:
        for page in (pixels, np.asarray(other)):
            writer.write(page, photometric="rgb", compression="zlib")
    drawn.save(OUT / "animated.png", save_all=True, append_images=[other], duration=100)
    drawn.save(OUT / "star.gif")
    drawn.save(OUT / "star.webp", quality=80)
    whole = io.BytesIO()
    drawn.save(whole, "PNG", optimize=True)
    (OUT / "truncated.png").write_bytes(whole.getvalue()[:TRUNCATED_BYTES])


if __name__ == "__main__":
    main()
