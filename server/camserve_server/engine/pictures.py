"""Pictures that are drawn for a model of which nobody gave any: no two alike, and the same on every machine."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray


def draw_picture(seed: int, width: int, height: int) -> NDArray[np.uint8]:
    """Returns a scene (height, width, 3) uint8: soft colours, a few discs and bars on them, and grain.

    A network that has learned from photographs is far more certain of such a scene than of noise.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    corners = rng.uniform(0, 255, (4, 3))
    across = np.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], axis=-1)
    scene = across @ corners
    for _ in range(rng.integers(2, 5)):
        centre, radius, colour = rng.uniform(0.1, 0.9, 2), rng.uniform(0.08, 0.3), rng.uniform(0, 255, 3)
        if rng.random() < 0.6:
            inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
        else:
            angle = rng.uniform(0, np.pi)
            along = (x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)
            aside = (y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)
            inside = (np.abs(along) < 1.5 * radius) & (np.abs(aside) < 0.4 * radius)
        scene[inside] = colour
    scene += rng.normal(0, 6, scene.shape)
    return scene.clip(0, 255).round().astype(np.uint8)


def encode_picture(pixels: NDArray[np.uint8]) -> bytes:
    """Returns a picture as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
