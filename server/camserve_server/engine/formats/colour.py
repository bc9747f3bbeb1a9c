"""From a decoder's colours to sRGB on white."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any, Final

import numpy as np
from PIL import Image, ImageCms

# Printer profiles reach some 3 MB; a larger one is no profile worth converting with.
_MAX_PROFILE_BYTES: Final = 4 << 20
_PROFILE_SPACES: Final = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}


def to_srgb(image: Image.Image, icc: bytes | None) -> Image.Image:
    """Convert an L, RGB or CMYK picture to RGB, through its ICC profile when that is usable."""
    if icc and len(icc) <= _MAX_PROFILE_BYTES:
        transform = _transform(icc, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


@lru_cache(maxsize=4)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB, or None for a profile that is broken or of another colour space."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        if profile.profile.xcolor_space.strip() != _PROFILE_SPACES[mode]:
            return None
        return ImageCms.buildTransform(profile, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def eight_bits(samples: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return uint16 samples divided by 257 and rounded, as uint8."""
    # Without a wider type: a multiple of 257 gives exactly its factor, a half may be rounded to either side.
    scaled: np.ndarray[Any, Any] = ((samples - (samples >> 8) + np.uint16(128)) >> 8).astype(np.uint8)
    return scaled


def on_white(samples: np.ndarray[Any, Any], alpha: np.ndarray[Any, Any]) -> Image.Image:
    """Composite (rows, columns, 1 or 3) uint8 samples with (rows, columns) uint8 alpha on white."""
    return paste_on_white(picture(samples), Image.fromarray(np.ascontiguousarray(alpha)))


def paste_on_white(image: Image.Image, alpha: Image.Image) -> Image.Image:
    """Composite an L or RGB picture on white."""
    white = Image.new(image.mode, image.size, "white")
    white.paste(image, mask=alpha)
    return white


def picture(samples: np.ndarray[Any, Any]) -> Image.Image:
    """Return (rows, columns, 1 or 3) uint8 samples as an L or RGB picture."""
    return Image.fromarray(np.ascontiguousarray(samples[..., 0] if samples.shape[2] == 1 else samples))
