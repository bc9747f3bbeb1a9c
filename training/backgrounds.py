"""Backgrounds for the scenes: plain, gradients, fractal noise, waves, textures and photo-like mixtures."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Field = NDArray[np.float32]
Color = NDArray[np.float32]


def random_color(rng: np.random.Generator) -> Color:
    """Draws an RGB colour, 0 to 255: any, grey, saturated, or one of the pure ones people type."""
    kind = rng.random()
    color: NDArray[np.floating]
    if kind < 0.45:
        color = rng.uniform(0, 255, 3)
    elif kind < 0.6:
        color = np.repeat(rng.uniform(0, 255), 3)
    elif kind < 0.8:
        hue = np.abs((rng.random() * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
        value, saturation = rng.uniform(60, 255), rng.uniform(0.5, 1)
        color = value * (1 - saturation + saturation * np.clip(hue, 0, 1))
    else:
        color = rng.integers(0, 2, 3) * 255.0
    return np.asarray(color, dtype=np.float32)


def fractal(rng: np.random.Generator, width: int, height: int) -> Field:
    """Returns (height, width) noise of several octaves, 0 to 1."""
    cells = float(rng.uniform(1.5, 5))
    roughness = float(rng.uniform(0.35, 0.75))
    field = np.zeros((height, width), dtype=np.float32)
    weight, longest = 1.0, max(width, height)
    for _ in range(int(rng.integers(2, 6))):
        grid = (max(2, int(cells * height / longest) + 1), max(2, int(cells * width / longest) + 1))
        noise = rng.random(grid, dtype=np.float32)
        field += weight * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
        cells *= 2.1
        weight *= roughness
        if cells > longest:
            break
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(1e-6, high - low), dtype=np.float32)


def _grid(width: int, height: int) -> tuple[Field, Field]:
    longest = np.float32(max(width, height))
    y = (np.arange(height, dtype=np.float32) - np.float32(height / 2)) / longest
    x = (np.arange(width, dtype=np.float32) - np.float32(width / 2)) / longest
    return x[None, :], y[:, None]


def ramp(rng: np.random.Generator, width: int, height: int) -> Field:
    """Returns a (height, width) linear or radial gradient, 0 to 1."""
    x, y = _grid(width, height)
    if rng.random() < 0.6:
        angle = rng.uniform(0, 2 * np.pi)
        field = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    else:
        cx, cy = rng.uniform(-0.6, 0.6, 2).astype(np.float32)
        field = np.sqrt((x - cx) ** 2 + (y - cy) ** 2)
    low, high = float(field.min()), float(field.max())
    return np.asarray((field - low) / max(1e-6, high - low), dtype=np.float32)


def pattern(rng: np.random.Generator, width: int, height: int) -> Field:
    """Returns a periodic (height, width) texture, 0 to 1: stripes, waves, checks, dots, a grid or bricks."""
    x, y = _grid(width, height)
    angle = rng.choice([0.0, np.pi / 4, np.pi / 2, rng.uniform(0, np.pi)])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    period = np.float32(rng.uniform(0.02, 0.16))
    u, v = (x * cos + y * sin) / period, (y * cos - x * sin) / period
    kind = int(rng.integers(6))
    field: Field
    if kind == 0:
        field = ((u % 1) < rng.uniform(0.2, 0.8)).astype(np.float32)
    elif kind == 1:
        field = np.asarray(0.5 + 0.5 * np.sin(2 * np.pi * (u + 0.4 * np.sin(v))), dtype=np.float32)
    elif kind == 2:
        field = ((np.floor(u) + np.floor(v)) % 2).astype(np.float32)
    elif kind == 3:
        field = (((u % 1) - 0.5) ** 2 + ((v % 1) - 0.5) ** 2 < rng.uniform(0.02, 0.16)).astype(np.float32)
    elif kind == 4:
        line = rng.uniform(0.05, 0.2)
        field = (((u % 1) < line) | ((v % 1) < line)).astype(np.float32)
    else:
        row = np.floor(v)
        field = ((((u + 0.5 * (row % 2)) / 2 % 1) < 0.07) | ((v % 1) < 0.12)).astype(np.float32)
    return np.broadcast_to(field, (height, width)).astype(np.float32)


def _mix(field: Field, first: Color, second: Color) -> Pixels:
    return np.asarray(first + field[:, :, None] * (second - first), dtype=np.float32)


def _plain(rng: np.random.Generator, width: int, height: int) -> Pixels:
    kind = rng.random()
    color = random_color(rng)
    if kind < 0.35:
        color = np.full(3, 255, np.float32)
    elif kind < 0.55:
        color = np.zeros(3, np.float32)
    return np.full((height, width, 3), color, dtype=np.float32)


def _near(rng: np.random.Generator, color: Color) -> Color:
    other = random_color(rng)
    return np.asarray(color + (other - color) * rng.uniform(0.15, 1.0), dtype=np.float32)


def _gradient(rng: np.random.Generator, width: int, height: int) -> Pixels:
    first = random_color(rng)
    return _mix(ramp(rng, width, height), first, _near(rng, first))


def _noise(rng: np.random.Generator, width: int, height: int) -> Pixels:
    first = random_color(rng)
    pixels = _mix(fractal(rng, width, height), first, _near(rng, first))
    if rng.random() < 0.4:
        third = random_color(rng)
        pixels += fractal(rng, width, height)[:, :, None] * (third - 128) * 0.6
    return pixels


def _texture(rng: np.random.Generator, width: int, height: int) -> Pixels:
    first = random_color(rng)
    pixels = _mix(pattern(rng, width, height), first, _near(rng, first))
    if rng.random() < 0.4:
        pixels *= (0.6 + 0.5 * fractal(rng, width, height))[:, :, None]
    return pixels


def _grain(rng: np.random.Generator, width: int, height: int) -> Pixels:
    cell = int(rng.integers(1, 9))
    grid = rng.uniform(0, 255, (height // cell + 1, width // cell + 1, 3)).astype(np.float32)
    if rng.random() < 0.5:
        grid[:, :, 1:] = grid[:, :, :1]
    strength = rng.uniform(0.15, 0.8)
    grid = random_color(rng) * (1 - strength) + grid * strength
    mode = cv2.INTER_NEAREST if rng.random() < 0.5 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grid, (width, height), interpolation=mode), dtype=np.float32)


def _photo(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Surfaces that meet in straight lines, with their own noise, soft blobs and one light."""
    pixels = _noise(rng, width, height) if rng.random() < 0.6 else _gradient(rng, width, height)
    x, y = _grid(width, height)
    for _ in range(int(rng.integers(0, 3))):
        angle = rng.uniform(0, 2 * np.pi)
        edge = (x * np.cos(angle) + y * np.sin(angle) - rng.uniform(0, 0.35)) * max(width, height)
        side = np.clip(edge / rng.uniform(0.7, 6), 0, 1).astype(np.float32)[:, :, None]
        surface = _gradient(rng, width, height) if rng.random() < 0.5 else _texture(rng, width, height)
        pixels = pixels * (1 - side) + surface * side
    for _ in range(int(rng.integers(0, 5))):
        cx, cy = rng.uniform(-0.5, 0.5, 2).astype(np.float32)
        spread = rng.uniform(0.05, 0.3, 2).astype(np.float32)
        blob = np.exp(-(((x - cx) / spread[0]) ** 2) - ((y - cy) / spread[1]) ** 2)[:, :, None]
        pixels = pixels + blob * (random_color(rng) - pixels) * np.float32(rng.uniform(0.2, 0.7))
    light = 0.65 + rng.uniform(0.1, 0.6) * ramp(rng, width, height)
    return np.asarray(pixels * light[:, :, None], dtype=np.float32)


def _waves(rng: np.random.Generator, width: int, height: int) -> Pixels:
    """Every colour channel goes its own way: bent waves, clouds or a ramp."""
    x, y = _grid(width, height)
    channels = []
    for _ in range(3):
        kind = rng.random()
        if kind < 0.6:
            a, b, c, d = rng.uniform(-28, 28, 4).astype(np.float32)
            bend = np.float32(rng.uniform(0, 2.5)) * np.sin(c * x + d * y)
            channels.append(0.5 + 0.5 * np.sin(a * x + b * y + bend + np.float32(rng.uniform(0, 6))))
        else:
            channels.append((fractal if kind < 0.85 else ramp)(rng, width, height))
    strength = rng.uniform(0.3, 1.0)
    if rng.random() < 0.3:
        channels = channels[:1] * 3
    mixed = np.stack(channels, axis=2) * 255 * strength + random_color(rng) * (1 - strength)
    return np.asarray(mixed, dtype=np.float32)


_KINDS: tuple[tuple[str, float, Callable[[np.random.Generator, int, int], Pixels]], ...] = (
    ("plain", 0.26, _plain),
    ("gradient", 0.10, _gradient),
    ("noise", 0.13, _noise),
    ("texture", 0.15, _texture),
    ("grain", 0.07, _grain),
    ("photo", 0.20, _photo),
    ("waves", 0.09, _waves),
)


def background(rng: np.random.Generator, width: int, height: int) -> tuple[str, Pixels]:
    """Returns the kind and (height, width, 3) float32 pixels, 0 to 255 (not clipped)."""
    number = int(rng.choice(len(_KINDS), p=[share for _, share, _ in _KINDS]))
    kind, _, draw = _KINDS[number]
    return kind, draw(rng, width, height)


def scribbled(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Returns the background with thin lines, specks or words on it; none of them is one of the classes."""
    canvas = np.ascontiguousarray(np.clip(pixels, 0, 255), dtype=np.uint8)
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(1, 5))):
        color = tuple(float(value) for value in random_color(rng))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        kind = rng.random()
        if kind < 0.5:
            steps = rng.normal(0, max(width, height) * 0.06, (int(rng.integers(2, 6)), 2))
            path = np.round(np.cumsum(steps, axis=0) + np.array([x, y])).astype(np.int32)
            cv2.polylines(canvas, [path], False, color, 1, cv2.LINE_AA)
        elif kind < 0.75:
            canvas[y : y + 2, x : x + 2] = color
        else:
            word = "".join(rng.choice(list("abcdefghjkmnpqrstuvwyz0123456789"), int(rng.integers(2, 8))))
            size = float(rng.uniform(0.25, 0.5)) * max(width, height) / 300
            cv2.putText(canvas, word, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, color, 1, cv2.LINE_AA)
    return np.asarray(canvas, dtype=np.float32)
