"""The ten classes as closed contours, several independent constructions for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = ("circle", "ring", "crescent", "square", "triangle", "pentagon", "hexagon", "star", "cross", "heart")

Contours = list[NDArray[np.float64]]
Recipe = Callable[[np.random.Generator], Contours]


def _arc(center: tuple[float, float], radius: float, start: float, end: float, points: int = 40) -> NDArray[np.float64]:
    angles = np.linspace(start, end, points)
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles)], axis=1)


def _bezier(points: list[tuple[float, float]], steps: int = 24) -> NDArray[np.float64]:
    a, b, c, d = (np.asarray(point, dtype=np.float64) for point in points)
    t = np.linspace(0.0, 1.0, steps)[:, None]
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def _mirrored(half: NDArray[np.float64]) -> Contours:
    """Closes a right half, given from top to bottom, with its mirror image."""
    return [np.concatenate([half, half[::-1] * np.array([-1.0, 1.0])])]


def _regular(corners: int, jitter: float, rng: np.random.Generator) -> Contours:
    angles = np.arange(corners) * 2 * np.pi / corners - np.pi / 2
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [points + rng.uniform(-jitter, jitter, points.shape)]


def rounded(contours: Contours, fraction: float) -> Contours:
    """Cuts every corner with a quadratic curve that starts `fraction` (0 to 0.5) of the edge away from it."""
    result = []
    t = np.linspace(0.0, 1.0, 7)[:, None, None]
    for points in contours:
        before = points + (np.roll(points, 1, axis=0) - points) * fraction
        after = points + (np.roll(points, -1, axis=0) - points) * fraction
        curve = (1 - t) ** 2 * before + 2 * (1 - t) * t * points + t**2 * after
        result.append(curve.transpose(1, 0, 2).reshape(-1, 2))
    return result


def _circle(rng: np.random.Generator) -> Contours:
    return [_arc((0.0, 0.0), 1.0, 0.0, 2 * np.pi, int(rng.integers(48, 120)))]


def _superellipse(rng: np.random.Generator) -> Contours:
    angles = np.linspace(0.0, 2 * np.pi, 96)
    power = 2.0 / rng.uniform(1.92, 2.12)
    cos, sin = np.cos(angles), np.sin(angles)
    return [np.stack([np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power], axis=1)]


def _annulus(rng: np.random.Generator) -> Contours:
    inner = float(rng.uniform(0.3, 0.92))
    shift = rng.normal(0.0, 0.06, 2) * (1 - inner) if rng.random() < 0.3 else np.zeros(2)
    return [_arc((0.0, 0.0), 1.0, 0.0, 2 * np.pi, 90), _arc((0.0, 0.0), inner, 0.0, 2 * np.pi, 90) + shift]


def _two_disc_crescent(rng: np.random.Generator) -> Contours:
    inner = float(rng.uniform(0.66, 1.2))
    width = float(rng.uniform(max(0.22, 2 * (1 - inner) + 0.03), 1.05))
    offset = inner - 1 + width
    x = (offset**2 + 1 - inner**2) / (2 * offset)
    y = float(np.sqrt(max(0.0, 1 - x * x)))
    a, b = float(np.arctan2(y, x)), float(np.arctan2(y, x - offset))
    outer_arc = _arc((0.0, 0.0), 1.0, a, 2 * np.pi - a, 70)
    return [np.concatenate([outer_arc, _arc((offset, 0.0), inner, 2 * np.pi - b, b, 60)])]


def _terminator_crescent(rng: np.random.Generator) -> Contours:
    outer = _arc((0.0, 0.0), 1.0, np.pi / 2, 3 * np.pi / 2, 50)
    inner = _arc((0.0, 0.0), 1.0, 3 * np.pi / 2, np.pi / 2, 50)
    return [np.concatenate([outer, inner * np.array([rng.uniform(0.2, 0.82), 1.0])])]


def _square(rng: np.random.Generator) -> Contours:
    height = float(rng.uniform(0.92, 1.08)) if rng.random() < 0.5 else 1.0
    return [np.array([[-1.0, -height], [1.0, -height], [1.0, height], [-1.0, height]])]


def _loose_square(rng: np.random.Generator) -> Contours:
    return [np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]) + rng.uniform(-0.08, 0.08, (4, 2))]


def _isosceles(rng: np.random.Generator) -> Contours:
    height = float(rng.uniform(1.2, 3.0))
    return [np.array([[0.0, -height / 2], [1.0, height / 2], [-1.0, height / 2]])]


def _right_triangle(rng: np.random.Generator) -> Contours:
    height = float(rng.uniform(1.2, 2.6))
    return [np.array([[-1.0, -height / 2], [1.0, height / 2], [-1.0, height / 2]])]


def _scalene(rng: np.random.Generator) -> Contours:
    while True:
        points = rng.uniform(-1.0, 1.0, (3, 2))
        edges = np.roll(points, -1, axis=0) - points
        lengths = np.hypot(edges[:, 0], edges[:, 1])
        area = abs(edges[0, 0] * edges[1, 1] - edges[0, 1] * edges[1, 0])
        if area > 0.45 * float(lengths.max()) ** 2:
            return [points - (points.max(axis=0) + points.min(axis=0)) / 2]


def star_points(corners: int, inner: float) -> NDArray[np.float64]:
    """The 2 x `corners` vertices of a star with outer radius 1, its first tip pointing up."""
    angles = np.arange(2 * corners) * np.pi / corners - np.pi / 2
    radii = np.where(np.arange(2 * corners) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _five_point_star(rng: np.random.Generator) -> Contours:
    inner = 0.382 if rng.random() < 0.2 else float(rng.uniform(0.25, 0.64))
    return [star_points(5, inner)]


def _many_point_star(rng: np.random.Generator) -> Contours:
    corners = int(rng.choice([4, 4, 6, 6, 6, 7, 8]))
    low, high = {4: (0.22, 0.48), 6: (0.35, 0.65), 7: (0.35, 0.68), 8: (0.4, 0.7)}[corners]
    return [star_points(corners, float(rng.uniform(low, high)))]


def _pentagram(_: np.random.Generator) -> Contours:
    angles = np.arange(5) * 4 * np.pi / 5 - np.pi / 2
    return [np.stack([np.cos(angles), np.sin(angles)], axis=1)]


def _plus(rng: np.random.Generator) -> Contours:
    a = float(rng.uniform(0.07, 0.42))
    b = a * float(rng.uniform(0.8, 1.25)) if rng.random() < 0.25 else a
    quarter = np.array([[a, -1.0], [a, -b], [1.0, -b], [1.0, b], [a, b], [a, 1.0]])
    return [np.concatenate([quarter, -quarter])]


def _latin_cross(rng: np.random.Generator) -> Contours:
    a, arm, level = float(rng.uniform(0.07, 0.26)), float(rng.uniform(0.55, 0.9)), float(rng.uniform(-0.5, -0.1))
    right = np.array([[a, -1.0], [a, level - a], [arm, level - a], [arm, level + a], [a, level + a], [a, 1.0]])
    return _mirrored(right)


def _flared_cross(rng: np.random.Generator) -> Contours:
    a = float(rng.uniform(0.08, 0.25))
    b = a * float(rng.uniform(1.1, 1.9))
    quarter = np.array([[b, -1.0], [a, -a], [1.0, -b], [1.0, b], [a, a], [b, 1.0]])
    return [np.concatenate([quarter, -quarter])]


def _round_ended_cross(rng: np.random.Generator) -> Contours:
    a = float(rng.uniform(0.08, 0.34))
    ends = [
        _arc((0.0, a - 1.0), a, np.pi, 2 * np.pi, 12),
        np.array([[a, -a]]),
        _arc((1.0 - a, 0.0), a, -np.pi / 2, np.pi / 2, 12),
        np.array([[a, a]]),
        _arc((0.0, 1.0 - a), a, 0.0, np.pi, 12),
        np.array([[-a, a]]),
        _arc((a - 1.0, 0.0), a, np.pi / 2, 3 * np.pi / 2, 12),
        np.array([[-a, -a]]),
    ]
    return [np.concatenate(ends)]


def _sine_heart(rng: np.random.Generator) -> Contours:
    t = np.linspace(0.0, 2 * np.pi, 100)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return [np.stack([np.sin(t) ** 3, -(y + 2.5) / 16 * rng.uniform(0.9, 1.15)], axis=1)]


def _root_heart(rng: np.random.Generator) -> Contours:
    """The boundary of x² + (y - k·|x|^p)² = 1, for several k and p."""
    x = np.sin(np.linspace(0.0, np.pi / 2, 40))
    lift = rng.uniform(0.6, 1.0) * x ** float(rng.choice([0.5, 0.667, 0.8, 1.0]))
    bow = np.sqrt(1 - x * x)
    upper = np.stack([x, -(lift + bow)], axis=1)
    lower = np.stack([x, -(lift - bow)], axis=1)[::-1]
    return _mirrored(np.concatenate([upper, lower]) + np.array([0.0, 0.3]))


def _arccos_heart(rng: np.random.Generator) -> Contours:
    x = 1 - np.cos(np.linspace(0.0, np.pi, 40))
    upper = np.stack([x, -np.sqrt(np.maximum(0.0, 1 - (x - 1) ** 2))], axis=1)
    lower = np.stack([x, np.pi - np.arccos(1 - x)], axis=1)
    lower[:, 1] *= rng.uniform(0.75, 1.0)
    return _mirrored((np.concatenate([upper, lower[::-1]]) + np.array([0.0, -0.8])) * 0.5)


def _square_heart(rng: np.random.Generator) -> Contours:
    radius = float(np.sqrt(0.5))
    half = np.concatenate([_arc((0.5, -0.5), radius, -3 * np.pi / 4, np.pi / 4), np.array([[0.0, 1.0]])])
    return _mirrored(half * np.array([1.0, rng.uniform(0.9, 1.2)]))


def _tangent_heart(rng: np.random.Generator) -> Contours:
    """Two discs side by side and the tangents from the tip below them."""
    radius, tip = float(rng.uniform(0.48, 0.62)), float(rng.uniform(1.05, 1.6))
    center_x = radius * float(rng.uniform(0.72, 1.0))
    to_tip = np.arctan2(tip, -center_x)
    reach = float(np.hypot(center_x, tip))
    touch = to_tip - np.arccos(radius / reach)
    notch = np.arctan2(-np.sqrt(max(0.0, radius**2 - center_x**2)), -center_x)
    half = np.concatenate([_arc((center_x, 0.0), radius, notch, touch), np.array([[0.0, tip]])])
    return _mirrored(half - np.array([0.0, (tip - radius) / 2]))


def _one_curve_heart(rng: np.random.Generator) -> Contours:
    half = _bezier(
        [
            (0.0, float(rng.uniform(-0.55, -0.3))),
            (float(rng.uniform(0.3, 0.8)), float(rng.uniform(-1.5, -1.1))),
            (float(rng.uniform(1.4, 2.1)), float(rng.uniform(-0.45, 0.05))),
            (0.0, 1.0),
        ],
        40,
    )
    return _mirrored(half)


def _two_curve_heart(rng: np.random.Generator) -> Contours:
    side = float(rng.uniform(-0.5, -0.2))
    notch = float(rng.uniform(-0.7, -0.4))
    upper = _bezier([(0.0, notch), (float(rng.uniform(0.05, 0.3)), -1.05), (1.0, -1.05), (1.0, side)])
    drop = side + float(rng.uniform(0.3, 0.6))
    pull = (float(rng.uniform(0.2, 0.6)), float(rng.uniform(0.4, 0.7)))
    lower = _bezier([(1.0, side), (1.0, drop), pull, (0.0, 1.0)])
    return _mirrored(np.concatenate([upper, lower[1:]]))


@lru_cache(maxsize=1)
def _quartic_heart_points() -> NDArray[np.float64]:
    y, x = np.mgrid[-1.5:1.5:600j, -1.5:1.5:600j]
    inside = ((17 * x * x - 16 * np.abs(x) * -y + 17 * y * y) < 17).astype(np.uint8)
    outline = max(cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len)
    return np.asarray(outline[::8, 0, :], dtype=np.float64) / 200.0 - 1.5


def _quartic_heart(_: np.random.Generator) -> Contours:
    return [_quartic_heart_points()]


RECIPES: dict[str, dict[str, Recipe]] = {
    "circle": {"arc": _circle, "superellipse": _superellipse},
    "ring": {"annulus": _annulus, "arc": _circle},
    "crescent": {"two_discs": _two_disc_crescent, "terminator": _terminator_crescent},
    "square": {"exact": _square, "loose": _loose_square},
    "triangle": {
        "equilateral": lambda rng: _regular(3, 0.03, rng),
        "isosceles": _isosceles,
        "right": _right_triangle,
        "scalene": _scalene,
    },
    "pentagon": {"regular": lambda rng: _regular(5, 0.0, rng), "loose": lambda rng: _regular(5, 0.05, rng)},
    "hexagon": {"regular": lambda rng: _regular(6, 0.0, rng), "loose": lambda rng: _regular(6, 0.04, rng)},
    "star": {
        "five": _five_point_star,
        "five_again": _five_point_star,
        "many": _many_point_star,
        "pentagram": _pentagram,
    },
    "cross": {
        "plus": _plus,
        "plus_again": _plus,
        "latin": _latin_cross,
        "flared": _flared_cross,
        "round_ends": _round_ended_cross,
    },
    "heart": {
        "sine": _sine_heart,
        "root": _root_heart,
        "arccos": _arccos_heart,
        "square": _square_heart,
        "tangent": _tangent_heart,
        "one_curve": _one_curve_heart,
        "two_curves": _two_curve_heart,
        "quartic": _quartic_heart,
    },
}
"""Class name -> recipe name -> construction; contours fill by the even-odd rule, radius about 1, y down."""

CORNERED = frozenset({"square", "triangle", "pentagon", "hexagon", "star", "cross"})
"""Classes whose corners may be rounded a little without becoming another class."""
