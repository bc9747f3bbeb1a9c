"""Scenes drawn by programs and recipes that training never uses, to see whether the model has learnt shapes."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import pyvips
from matplotlib import font_manager, patches, path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from training.outlines import CLASSES, star_points
from training.shapes_scenes import MIN_OBJECT_SHARE, Scene

Color = tuple[int, int, int]
Coverage = NDArray[np.uint8]
Draw = Callable[[np.random.Generator, str, int], Coverage]

_NAMED: tuple[Color, ...] = (
    (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 165, 0), (128, 0, 128), (0, 0, 0), (255, 255, 255),
    (255, 255, 0), (0, 255, 255), (255, 192, 203), (165, 42, 42), (30, 144, 255), (70, 70, 70), (34, 139, 34),
)  # fmt: skip


def _flat(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _pillow(rng: np.random.Generator, name: str, side: int) -> Coverage:
    """Pillow's own primitives: ellipse, rectangle, regular_polygon, polygon, line; hearts of ellipses."""
    image = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(image)
    m = side / 2
    r = side * 0.45
    line = max(2, round(side * float(rng.uniform(0.015, 0.08))))
    hollow = rng.random() < 0.35
    turn = float(rng.choice([0, 0, rng.uniform(0, 360)]))
    corners = {"square": 4, "triangle": 3, "pentagon": 5, "hexagon": 6}
    if name == "circle":
        draw.ellipse((m - r, m - r, m + r, m + r), fill=255)
    elif name == "ring":
        wall = line if hollow else round(r * float(rng.uniform(0.2, 0.6)))
        draw.ellipse((m - r, m - r, m + r, m + r), outline=255, width=wall)
    elif name == "crescent":
        shift, bite = r * float(rng.uniform(0.35, 0.6)), r * float(rng.uniform(0.85, 1.0))
        draw.ellipse((m - r, m - r, m + r, m + r), fill=255)
        draw.ellipse((m + shift - bite, m - bite, m + shift + bite, m + bite), fill=0)
    elif name in corners:
        fill, outline = (None, 255) if hollow else (255, None)
        draw.regular_polygon((m, m, r), corners[name], turn, fill, outline, line if hollow else 1)
    elif name == "star":
        points = _flat(star_points(5, float(rng.uniform(0.33, 0.55))) * r + m)
        draw.polygon(points, fill=None if hollow else 255, outline=255, width=line)
    elif name == "cross":
        arm = r * float(rng.uniform(0.12, 0.38))
        if rng.random() < 0.5:
            draw.rectangle((m - arm, m - r, m + arm, m + r), fill=255)
            draw.rectangle((m - r, m - arm, m + r, m + arm), fill=255)
        else:
            draw.line((m - r, m - r, m + r, m + r), fill=255, width=round(arm))
            draw.line((m - r, m + r, m + r, m - r), fill=255, width=round(arm))
    else:
        draw.ellipse((m - r, m - r * 0.9, m + r * 0.04, m + r * 0.12), fill=255)
        draw.ellipse((m - r * 0.04, m - r * 0.9, m + r, m + r * 0.12), fill=255)
        draw.polygon([(m - r * 0.94, m - r * 0.15), (m + r * 0.94, m - r * 0.15), (m, m + r)], fill=255)
    if turn and name in {"crescent", "star", "cross", "heart"}:
        image = image.rotate(turn, Image.Resampling.BICUBIC)
    return np.asarray(image)


def _opencv(rng: np.random.Generator, name: str, side: int) -> Coverage:
    """OpenCV's own primitives, and the implicit heart (x² + y² - 1)³ = x²y³ evaluated for each pixel."""
    mask = np.zeros((side, side), dtype=np.uint8)
    m, r = side // 2, int(side * 0.44)
    smooth = cv2.LINE_AA if rng.random() < 0.6 else cv2.LINE_8
    line = -1 if rng.random() < 0.65 else max(2, round(side * float(rng.uniform(0.015, 0.06))))
    turn = float(rng.choice([0, rng.uniform(0, 2 * np.pi)]))
    corners = {"square": 4, "triangle": 3, "pentagon": 5, "hexagon": 6}
    if name == "circle":
        cv2.circle(mask, (m, m), r, 255, -1, smooth)
    elif name == "ring":
        wall = max(2, round(r * float(rng.uniform(0.08, 0.5))))
        cv2.circle(mask, (m, m), r - wall // 2, 255, wall, smooth)
    elif name == "crescent":
        cv2.ellipse(mask, (m, m), (r, r), np.degrees(turn), 90, 270, 255, -1, smooth)
        inner = int(r * rng.uniform(0.3, 0.75))
        cv2.ellipse(mask, (m, m), (inner, r), np.degrees(turn), 0, 360, 0, -1, smooth)
    elif name in corners or name == "star":
        if name == "star":
            points = star_points(5, float(rng.uniform(0.3, 0.6)))
        else:
            angles = np.arange(corners[name]) * 2 * np.pi / corners[name]
            points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        outline = np.round(points @ spin.T * r + m).astype(np.int32)
        if line < 0:
            cv2.fillPoly(mask, [outline], 255, smooth)
        else:
            cv2.polylines(mask, [outline], True, 255, line, smooth)
    elif name == "cross":
        width = max(2, round(r * float(rng.uniform(0.15, 0.6))))
        for angle in (turn, turn + np.pi / 2):
            step = np.round(np.array([np.cos(angle), np.sin(angle)]) * r * 0.9).astype(int)
            x, y = int(step[0]), int(step[1])
            cv2.line(mask, (m - x, m - y), (m + x, m + y), 255, width, smooth)
    else:
        v, u = np.mgrid[1.3 : -1.3 : side * 1j, -1.3 : 1.3 : side * 1j]
        mask[(u * u + v * v - 1) ** 3 - u * u * v**3 <= 0] = 255
    return mask


_SVG_CORNERS = {"square": 4, "triangle": 3, "pentagon": 5, "hexagon": 6}


def _svg_shape(rng: np.random.Generator, name: str) -> tuple[str, bool]:
    """Returns an element in a 100 x 100 view and whether it may be drawn as a line."""
    if name == "circle":
        return '<circle cx="50" cy="50" r="44" {paint}/>', False
    if name == "ring":
        wall = float(rng.uniform(3, 22))
        return f'<circle cx="50" cy="50" r="{44 - wall / 2}" fill="none" stroke="#fff" stroke-width="{wall}"/>', False
    if name == "crescent":
        inner = float(rng.uniform(46, 90))
        return f'<path d="M60 8 A44 44 0 1 0 60 92 A{inner} {inner} 0 0 1 60 8 Z" {{paint}}/>', True
    if name == "square":
        return f'<rect x="14" y="14" width="72" height="72" rx="{rng.choice([0, 0, 6])}" {{paint}}/>', True
    if name in _SVG_CORNERS or name == "star":
        points = star_points(5, float(rng.uniform(0.3, 0.55)))
        if name != "star":
            angles = np.arange(_SVG_CORNERS[name]) * 2 * np.pi / _SVG_CORNERS[name] - np.pi / 2
            points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        text = " ".join(f"{x:.2f},{y:.2f}" for x, y in points * 43 + 50)
        return f'<polygon points="{text}" {{paint}}/>', True
    if name == "cross":
        a = float(rng.uniform(5, 18))
        low, high = 50 - a, 50 + a
        return f'<path d="M{low} 8H{high}V{low}H92V{high}H{high}V92H{low}V{high}H8V{low}H{low}Z" {{paint}}/>', True
    paths = (
        "M50 88 C20 62 8 48 8 32 C8 18 18 10 29 10 C38 10 46 15 50 24 "
        "C54 15 62 10 71 10 C82 10 92 18 92 32 C92 48 80 62 50 88 Z",
        "M50 90 L14 52 A22 22 0 0 1 50 24 A22 22 0 0 1 86 52 Z",
        "M50 30 C50 26 46 12 28 12 C4 12 4 42 4 42 C4 58 20 76 50 92 "
        "C80 76 96 58 96 42 C96 42 96 12 72 12 C58 12 50 26 50 30 Z",
    )
    return f'<path d="{paths[int(rng.integers(3))]}" {{paint}}/>', True


def _svg(rng: np.random.Generator, name: str, side: int) -> Coverage:
    """An SVG element through librsvg."""
    element, may_be_line = _svg_shape(rng, name)
    paint = 'fill="#fff"'
    if may_be_line and rng.random() < 0.35:
        join = str(rng.choice(["miter", "round", "bevel"]))
        paint = f'fill="none" stroke="#fff" stroke-width="{rng.uniform(2, 9):.1f}" stroke-linejoin="{join}"'
    turn = float(rng.choice([0, rng.uniform(0, 360)]))
    # Turned, a square's corners would leave the view: shrink it about the middle.
    body = f'<g transform="rotate({turn:.1f} 50 50) translate(50 50) scale(0.82) translate(-50 -50)">{element}</g>'
    frame = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100" width="{side}" height="{side}"'
    source = f"<svg {frame}>{body}</svg>"
    picture = pyvips.Image.svgload_buffer(source.replace("{paint}", paint).encode()).numpy()
    return np.asarray(picture[:, :, 3], dtype=np.uint8)


def _agg_patch(rng: np.random.Generator, name: str) -> patches.Patch:
    turn = float(rng.choice([0.0, rng.uniform(0, 2 * np.pi)]))
    corners = {"triangle": 3, "pentagon": 5, "hexagon": 6}
    if name == "circle":
        return patches.Circle((0, 0), 0.9)
    if name == "ring":
        return patches.Annulus((0, 0), 0.9, float(rng.uniform(0.08, 0.55)))
    if name == "square":
        return patches.Rectangle((-0.62, -0.62), 1.24, 1.24, angle=np.degrees(turn), rotation_point="center")
    if name in corners:
        return patches.RegularPolygon((0, 0), corners[name], radius=0.9, orientation=turn)
    if name == "heart":
        vertices = np.array([(0, 0.45), (0.25, 1.0), (1.0, 0.95), (0.9, 0.2), (0.8, -0.2), (0.3, -0.55), (0, -0.9)])
        vertices = np.concatenate([vertices, vertices[-2::-1] * [-1, 1]])
        return patches.PathPatch(path.Path(vertices, [1] + [4] * 12))
    if name == "crescent":
        wide = float(rng.uniform(0.25, 0.55))
        outer = path.Path.arc(60, 300)
        horns, codes = np.array(outer.vertices), np.array(outer.codes)
        end, start = horns[-1], horns[0]
        inner = np.array([[-wide, end[1] * 0.6], [-wide, start[1] * 0.6], start])
        vertices = np.concatenate([horns, inner]) * 0.9
        return patches.PathPatch(path.Path(vertices, [*codes, 4, 4, 4]))
    if name == "star":
        marker = star_points(int(rng.choice([5, 5, 5, 6])), float(rng.uniform(0.38, 0.55)))
    else:
        arm = float(rng.uniform(0.12, 0.36))
        quarter = np.array([[arm, -1.0], [arm, -arm], [1.0, -arm], [1.0, arm], [arm, arm], [arm, 1.0]])
        marker = np.concatenate([quarter, -quarter])
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return patches.Polygon(marker @ spin.T * 0.9, closed=True)


def _matplotlib(rng: np.random.Generator, name: str, side: int) -> Coverage:
    """A patch through matplotlib's Agg renderer."""
    figure = Figure(figsize=(1, 1), dpi=side, facecolor="black")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-1, 1), ylim=(-1, 1))
    axes.set_axis_off()
    patch = _agg_patch(rng, name)
    if name not in {"circle", "ring"} and rng.random() < 0.3:
        patch.set(fill=False, edgecolor="white", linewidth=float(rng.uniform(1.2, 5)))
    else:
        patch.set(facecolor="white", linewidth=0)
    axes.add_patch(patch)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, 0]  # type: ignore[no-untyped-call]


_GLYPHS = {
    "circle": "●⬤", "ring": "○◯", "crescent": "☾☽", "square": "■□◆◇", "triangle": "▲△▼▽", "pentagon": "⬟⬠",
    "hexagon": "⬢⬡⬣", "star": "★☆", "cross": "✚✖", "heart": "♥♡",
}  # fmt: skip


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)


def _glyph(rng: np.random.Generator, name: str, side: int) -> Coverage:
    """A character of the DejaVu Sans font."""
    image = Image.new("L", (side, side), 0)
    letter = str(rng.choice(list(_GLYPHS[name])))
    ImageDraw.Draw(image).text((side / 2, side / 2), letter, 255, _font(max(16, side // 16 * 14)), anchor="mm")
    return np.asarray(image)


RENDERERS: dict[str, Draw] = {
    "pillow": _pillow,
    "opencv": _opencv,
    "svg": _svg,
    "matplotlib": _matplotlib,
    "glyph": _glyph,
}


def _backdrop(rng: np.random.Generator, width: int, height: int) -> tuple[str, Image.Image]:
    size = (width, height)
    kind = str(rng.choice(["white", "black", "named", "named", "effect", "fade", "plasma", "mosaic", "fractal"]))
    first, second = (_NAMED[int(number)] for number in rng.choice(len(_NAMED), 2, replace=False))
    if kind in {"white", "black"}:
        return kind, Image.new("RGB", size, kind)
    if kind == "named":
        return kind, Image.new("RGB", size, first)
    if kind == "effect":
        noise = rng.normal(128, rng.uniform(10, 60), (height, width, 3))
        return kind, Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    if kind == "fade":
        weight = Image.linear_gradient("L") if rng.random() < 0.5 else Image.radial_gradient("L")
        return kind, Image.composite(Image.new("RGB", size, first), Image.new("RGB", size, second), weight.resize(size))
    if kind == "plasma":
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        waves = [
            np.sin(x * rng.uniform(4, 30) + np.cos(y * rng.uniform(4, 20)) * 2 + rng.uniform(0, 6)) for _ in range(3)
        ]
        return kind, Image.fromarray(((np.stack(waves, axis=2) + 1) * 127).astype(np.uint8))
    if kind == "mosaic":
        cells = rng.integers(0, 256, (int(rng.integers(6, 40)), int(rng.integers(6, 40)), 3), dtype=np.uint8)
        smooth = Image.Resampling.NEAREST if rng.random() < 0.5 else Image.Resampling.BICUBIC
        faded = Image.blend(Image.fromarray(cells), Image.new("RGB", (cells.shape[1], cells.shape[0]), first), 0.5)
        return kind, faded.resize(size, smooth)
    edge = float(rng.uniform(-2, -1.2))
    drawn = Image.effect_mandelbrot((256, 256), (edge, -1.2, edge + 2, 1.2), 60).resize(size)
    # Only faintly: the set itself is made of hearts and circles.
    picture = Image.composite(Image.new("RGB", size, first), Image.new("RGB", size, second), drawn)
    return kind, Image.blend(picture, Image.new("RGB", size, first), 0.75)


def _readable(rng: np.random.Generator, around: NDArray[np.uint8], line: bool) -> Color:
    colors = [_NAMED[int(number)] for number in rng.permutation(len(_NAMED))]
    pixels = around.reshape(-1, 3)[:: max(1, around.size // 1200)].astype(np.float64)
    scores = [float(np.percentile(np.linalg.norm(pixels - color, axis=1), 10)) for color in colors]
    good = [color for color, score in zip(colors, scores, strict=True) if score > (130 if line else 80)]
    return good[0] if good else colors[int(np.argmax(scores))]


def draw_foreign_scene(seed: int, index: int) -> Scene:
    """Draws scene number `index` of the foreign series `seed`; classes take turns, renderers in longer turns."""
    rng = np.random.default_rng((seed, index, 7))
    label = index % len(CLASSES)
    renderer = list(RENDERERS)[index // len(CLASSES) % len(RENDERERS)]
    longest = int(rng.choice([96, 128, 200, 224, 256, 320, 400, 512, 640, 800]))
    width, height = longest, max(40, round(longest / float(rng.choice([1, 1, 1, 4 / 3, 3 / 2, 16 / 9, 2.4]))))
    if rng.random() < 0.3:
        width, height = height, width
    shortest = min(width, height)
    side = int(max(rng.uniform(0.18, 0.95) * shortest, longest * MIN_OBJECT_SHARE * 1.25))
    mask = RENDERERS[renderer](rng, CLASSES[label], min(side, shortest))
    side = mask.shape[0]
    left, top = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    kind, picture = _backdrop(rng, width, height)
    around = np.asarray(picture)[top : top + side, left : left + side]
    color = _readable(rng, around, line=float((mask > 128).mean()) < 0.2)
    picture.paste(color, (left, top, left + side, top + side), Image.fromarray(mask))
    if rng.random() < 0.1:
        picture = picture.filter(ImageFilter.GaussianBlur(0.006 * side))
    if rng.random() < 0.1:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < 0.25:
        packed = io.BytesIO()
        picture.save(packed, "JPEG", quality=int(rng.integers(40, 95)))
        picture = Image.open(packed)
    covered = np.zeros((height, width), dtype=np.uint8)
    covered[top : top + side, left : left + side] = mask
    ys, xs = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
    return Scene(np.array(picture), label, box, covered, f"{CLASSES[label]}/{renderer}/{kind}")
