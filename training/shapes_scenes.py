"""Draws scenes for the model `shapes`: one object of a known class and box on an arbitrary background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.backgrounds import Color, Pixels, background, fractal, pattern, ramp, random_color, scribbled
from training.outlines import CLASSES, CORNERED, RECIPES, Contours, rounded
from training.renderers import STYLES, Mask, fill, inner_stroke, stroke

Box = tuple[float, float, float, float]

PAD_COLOR = (128, 128, 128)
MIN_OBJECT_SHARE = 0.125
"""Least longest side of a box as a share of the picture's longest side: 16 px of a 128 px model input."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture, its class index and the box (x0, y0, x1, y1) in pixels that holds every pixel of the object."""

    pixels: NDArray[np.uint8]
    label: int
    box: Box
    mask: Mask
    recipe: str


@dataclass(frozen=True, slots=True)
class _Figure:
    mask: Mask
    border: Mask | None
    line_px: float | None
    recipe: str


def letterbox(pixels: NDArray[np.uint8], side: int, pad_color: tuple[int, int, int] = PAD_COLOR) -> NDArray[np.uint8]:
    """Fits a (H, W, 3) picture into (side, side, 3) with Pillow's antialiased bilinear filter, centred."""
    height, width = pixels.shape[:2]
    scale = side / max(width, height)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(pixels)
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.Resampling.BILINEAR, reducing_gap=3.0)
    canvas = np.empty((side, side, 3), dtype=np.uint8)
    canvas[:] = pad_color
    top, left = (side - new_height) // 2, (side - new_width) // 2
    canvas[top : top + new_height, left : left + new_width] = np.asarray(image)
    return canvas


def letterboxed_box(box: Box, width: int, height: int, side: int) -> Box:
    """Moves a box of a width x height picture into the coordinates of its letterboxed version."""
    scale = side / max(width, height)
    left = (side - max(1, round(width * scale))) // 2
    top = (side - max(1, round(height * scale))) // 2
    return (box[0] * scale + left, box[1] * scale + top, box[2] * scale + left, box[3] * scale + top)


def _canvas_size(rng: np.random.Generator) -> tuple[int, int]:
    kind = rng.random()
    low, high = (64, 128) if kind < 0.2 else (128, 320) if kind < 0.88 else (320, 640)
    longest = int(rng.integers(low, high))
    kind = rng.random()
    aspect = 1.0 if kind < 0.48 else float(rng.uniform(1.0, 1.8)) if kind < 0.88 else float(rng.uniform(1.8, 3.0))
    shortest = max(24, round(longest / aspect))
    return (longest, shortest) if rng.random() < 0.5 else (shortest, longest)


def _wobble(rng: np.random.Generator, contours: Contours, amount: float) -> Contours:
    """Bends contours smoothly, as a hand would; `amount` is a share of the radius."""
    result = []
    waves = rng.normal(0, amount / 3, (2, 3))
    phases = rng.uniform(0, 2 * np.pi, (2, 3))
    for points in contours:
        parts = 1 if len(points) > 30 else 12
        steps = np.linspace(0, 1, parts, endpoint=False)[None, :, None]
        dense = (points[:, None, :] + (np.roll(points, -1, axis=0) - points)[:, None, :] * steps).reshape(-1, 2)
        angles = np.arctan2(dense[:, 1], dense[:, 0])[:, None]
        for axis in range(2):
            dense[:, axis] += (waves[axis] * np.sin(angles * np.array([2, 3, 5]) + phases[axis])).sum(axis=1)
        result.append(dense)
    return result


def _placed(rng: np.random.Generator, contours: Contours, width: int, height: int) -> tuple[Contours, float]:
    """Turns, stretches and moves contours into the picture; returns them and the box's longest side in pixels."""
    turn = rng.random()
    angle = 0.0 if turn < 0.3 else float(rng.integers(4)) * np.pi / 4 if turn < 0.4 else rng.uniform(0, 2 * np.pi)
    shape = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.35:
        shear = rng.uniform(-0.1, 0.1)
        shape = np.array([[rng.uniform(0.87, 1.0), shear], [0.0, 1.0]]) @ shape
    points = [contour @ shape.T for contour in contours]
    everything = np.concatenate(points)
    low, high = everything.min(axis=0), everything.max(axis=0)
    extent = high - low
    shortest, longest = min(width, height), max(width, height)
    share = rng.uniform(0.12, 0.45) if rng.random() < 0.4 else rng.uniform(0.3, 0.8)
    target = max(share * shortest, MIN_OBJECT_SHARE * longest)
    target = min(target, 0.9 * width * extent.max() / extent[0], 0.9 * height * extent.max() / extent[1])
    scale = target / extent.max()
    room = np.array([width, height]) - extent * scale
    corner = room * (0.5 if rng.random() < 0.2 else rng.uniform(0.03, 0.97, 2))
    return [(contour - low) * scale + corner for contour in points], float(target)


def _figure(rng: np.random.Generator, label: int, width: int, height: int) -> _Figure:
    """Draws the object's coverage; `border` is the part of it that gets a colour of its own."""
    name = CLASSES[label]
    recipe = str(rng.choice(list(RECIPES[name])))
    contours = RECIPES[name][recipe](rng)
    if name in CORNERED and recipe not in {"round_ends", "pentagram"} and rng.random() < 0.12:
        contours = rounded(contours, float(rng.uniform(0.04, 0.22 if name in {"square", "triangle"} else 0.13)))
    if rng.random() < 0.12:
        contours = _wobble(rng, contours, float(rng.uniform(0.01, 0.04)))
    placed, size_px = _placed(rng, contours, width, height)
    input_px = 128 / max(width, height)
    thinnest = max(1.0, 0.6 / input_px)
    thickest = max(thinnest + 0.5, size_px * (0.16 if name == "ring" else 0.11))
    line_px = float(np.exp(rng.uniform(np.log(thinnest), np.log(thickest))))
    outlined = recipe == "arc" if name == "ring" else name != "circle" and rng.random() < 0.3
    style = STYLES[int(rng.integers(len(STYLES)))]
    factor = int(rng.integers(2, 5))

    # Work in a window around the object: most pictures are far larger than what is drawn.
    everything = np.concatenate(placed)
    margin = int(line_px / 2 + 3)
    left, top = (max(0, int(value) - margin) for value in everything.min(axis=0))
    right = min(width, int(everything[:, 0].max()) + margin + 1)
    bottom = min(height, int(everything[:, 1].max()) + margin + 1)
    local = [points - [left, top] for points in placed]
    size = (right - left, bottom - top)
    mask, border = np.zeros((height, width), dtype=np.uint8), None
    window = (slice(top, bottom), slice(left, right))
    if outlined and recipe != "pentagram" and rng.random() < 0.3:
        mask[window] = inner_stroke(local, *size, line_px, factor)
    elif outlined:
        mask[window] = stroke(local, *size, style, line_px, factor)
    else:
        mask[window] = fill(local, *size, style, factor)
        if name != "ring" and rng.random() < 0.14:
            border = np.zeros_like(mask)
            line_px = min(line_px, size_px * 0.04)
            border[window] = stroke(local, *size, style, line_px, factor)
        line_px = 0.0
    return _Figure(mask, border, line_px * input_px if line_px else None, recipe)


def _bounds(mask: Mask) -> Box:
    """Returns the smallest box that holds every pixel that is not 0."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))


def _paint(rng: np.random.Generator, pixels: Pixels, figure: _Figure, grey: bool) -> Color:
    """Chooses a colour that stands out from what lies around the object (the best of several draws)."""
    x0, y0, x1, y1 = (int(value) for value in _bounds(figure.mask))
    step = max(1, (y1 - y0) // 12), max(1, (x1 - x0) // 12)
    around = pixels[y0 : y1 : step[0], x0 : x1 : step[1]].reshape(-1, 3)
    luma = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    if grey:
        around = np.repeat(around @ luma, 3).reshape(-1, 3)
    wanted = float(rng.choice([42.0, 60.0, 90.0, 130.0]))
    # On a busy ground, or for a small object, the least contrast is not enough to tell a hexagon from a circle.
    busy = float(around.std(axis=0).max()) > 22
    if busy or figure.border is not None or max(x1 - x0, y1 - y0) * 128 < 28 * max(figure.mask.shape):
        wanted = max(wanted, 100.0)
    if busy and figure.line_px is not None:
        wanted *= 1.3
    if figure.line_px is not None:
        wanted = min(260.0, wanted / min(1.0, figure.line_px))
    best, best_distance = np.zeros(3, np.float32), -1.0
    for attempt in range(20):
        color = random_color(rng) if attempt < 18 else np.full(3, 255.0 * (attempt - 18), np.float32)
        seen = np.repeat(color @ luma, 3) if grey else color
        distance = float(np.percentile(np.sqrt(((around - seen) ** 2).sum(axis=1)), 12))
        if distance > best_distance:
            best, best_distance = color, distance
        if best_distance >= wanted:
            break
    return np.asarray(best, dtype=np.float32)


def _compose(rng: np.random.Generator, pixels: Pixels, figure: _Figure, covered: Mask, grey: bool) -> Pixels:
    """Paints the object, its shadow and its border over the background, in place."""
    longest = max(covered.shape)
    color = _paint(rng, pixels, figure, grey)
    if rng.random() < 0.1:
        shift = rng.integers(-longest // 40 - 1, longest // 40 + 2, 2)
        moved = np.roll(figure.mask, tuple(int(value) for value in shift), axis=(0, 1)).astype(np.float32)
        shadow = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(0.5, 0.02 * longest + 0.6)))
        pixels *= 1 - shadow[:, :, None] / 255 * np.float32(rng.uniform(0.2, 0.6))
    x0, y0, x1, y1 = (int(value) for value in _bounds(covered))
    window = (slice(y0, y1), slice(x0, x1))
    alpha = figure.mask[window].astype(np.float32)[:, :, None] / 255
    surface: NDArray[np.floating] = color
    kind = rng.random()
    if kind < 0.15:
        surface = color * (0.75 + 0.4 * ramp(rng, x1 - x0, y1 - y0))[:, :, None]
    elif kind < 0.25:
        field = (fractal if rng.random() < 0.6 else pattern)(rng, x1 - x0, y1 - y0)
        surface = color + (field[:, :, None] - 0.5) * np.float32(rng.uniform(10, 50))
    if rng.random() < 0.08:
        alpha *= np.float32(rng.uniform(0.8, 0.95))
    pixels[window] = pixels[window] * (1 - alpha) + surface * alpha
    if figure.border is not None:
        edge = figure.border[window].astype(np.float32)[:, :, None] / 255
        pixels[window] = pixels[window] * (1 - edge) + random_color(rng) * edge
    return pixels


def _photographed(rng: np.random.Generator, pixels: Pixels, size_px: float, fine: bool) -> NDArray[np.uint8]:
    """Adds what a camera and a codec do: light, blur, noise and JPEG artefacts; less where the object is fine."""
    height, width = pixels.shape[:2]
    if rng.random() < 0.15:
        pixels = pixels * (0.7 + rng.uniform(0.2, 0.5) * ramp(rng, width, height))[:, :, None]
    if rng.random() < 0.18:
        widest = max(0.4, size_px * (0.008 if fine else 0.028))
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.3, widest + 0.01))).astype(np.float32)
    if rng.random() < 0.3:
        strength = float(rng.uniform(1, 6 if fine else 16))
        noise = rng.standard_normal((height, width, 1 if rng.random() < 0.5 else 3), dtype=np.float32)
        pixels = pixels + noise * np.float32(strength)
    if rng.random() < 0.03:
        salt = rng.random((height, width), dtype=np.float32)
        pixels = np.where((salt < 0.004)[:, :, None], 0, np.where((salt > 0.996)[:, :, None], 255, pixels))
    result = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        quality = int(rng.integers(70 if fine else 30, 96))
        packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        result = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), dtype=np.uint8)
    return result


def draw_scene(seed: int, index: int, label: int | None = None) -> Scene:
    """Draws scene number `index` of the series `seed`; the same numbers always give the same pixels.

    `label` is the class index; without it the classes take turns by `index`.
    """
    rng = np.random.default_rng((seed, index))
    label = index % len(CLASSES) if label is None else label
    while True:
        width, height = _canvas_size(rng)
        figure = _figure(rng, label, width, height)
        covered = figure.mask if figure.border is None else np.maximum(figure.mask, figure.border)
        if int(covered.max(initial=0)) > 60:
            break
    grey = rng.random() < 0.1
    kind, pixels = background(rng, width, height)
    pixels = np.clip(pixels, 0, 255)
    if rng.random() < 0.1:
        pixels = scribbled(rng, pixels)
    pixels = _compose(rng, np.asarray(pixels, dtype=np.float32), figure, covered, grey)
    if grey:
        pixels = np.repeat(pixels @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32), 3, axis=2)
    box = _bounds(covered)
    size_px = max(box[2] - box[0], box[3] - box[1])
    if kind == "plain" and rng.random() < 0.5:
        result = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    else:
        small = size_px * 128 / max(width, height) < 28
        result = _photographed(rng, pixels, size_px, fine=small or figure.line_px is not None)
    return Scene(result, label, box, covered, f"{CLASSES[label]}/{figure.recipe}/{kind}")
