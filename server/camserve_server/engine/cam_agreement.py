"""How far two class activation maps of one picture agree about where to look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from camserve_server.engine.render import CONSTANT_RATIO, placed

Array = np.ndarray[Any, Any]
View = tuple[float, float, float, float]

# Cells of a side of the grid on which both maps are compared; maps are of 7 to 14 cells.
_SIDE: Final = 32
# The share of the grid that is a map's top area.
_TOP_SHARE: Final = 0.2


@dataclass(frozen=True, slots=True)
class SeenMap:
    """A raw map (h, w) float32 and the part of the picture that it covers, in fractions of it; see DecodedImage."""

    cam: Array
    view: View


@dataclass(frozen=True, slots=True)
class CamAgreement:
    """`iou` of the top areas, 0 to 1; `shift` of the centres in picture diagonals, 0 to 1.

    `shift` is None where the second map has no structure, and `iou` then 0.
    """

    iou: float
    shift: float | None


def cam_agreement(one: SeenMap, other: SeenMap, width: int, height: int) -> CamAgreement | None:
    """Compares two maps of a picture of this size in what both of them show of it.

    None where the first map has no structure there: then there is nothing to agree with.
    """
    common = _common(one.view, other.view)
    if common is None:
        return None
    first, second = _on_grid(one, common), _on_grid(other, common)
    if first is None:
        return None
    if second is None:
        return CamAgreement(0.0, None)
    return CamAgreement(_iou(top_area(first), top_area(second)), _shift(first, second, common, width, height))


def top_area(grid: Array) -> Array:
    """Returns which cells are the strongest fifth: those that reach the weakest of them, and are above the minimum.

    So cells that are alike are in or out together: more than a fifth where they reach the bar, fewer where the rest of
    the map is all at its minimum.
    """
    count = math.ceil(_TOP_SHARE * grid.size)
    bar = np.partition(grid, -count, axis=None)[-count]
    area: Array = (grid >= bar) & (grid > grid.min())
    return area


def centre(grid: Array) -> tuple[float, float]:
    """Returns the centre of mass (x, y) of a map less its minimum, in fractions of the grid."""
    weights = grid - grid.min()
    middles = [(np.arange(size) + 0.5) / size for size in grid.shape]
    total = weights.sum()
    return float(weights.sum(axis=0) @ middles[1] / total), float(weights.sum(axis=1) @ middles[0] / total)


def _iou(one: Array, other: Array) -> float:
    return float((one & other).sum() / (one | other).sum())


def _shift(one: Array, other: Array, common: View, width: int, height: int) -> float:
    (x, y), (other_x, other_y) = centre(one), centre(other)
    x0, y0, x1, y1 = common
    across, down = (other_x - x) * (x1 - x0) * width, (other_y - y) * (y1 - y0) * height
    return math.hypot(across, down) / math.hypot(width, height)


def _common(one: View, other: View) -> View | None:
    """Returns the part of the picture that both views show."""
    x0, y0 = max(0.0, one[0], other[0]), max(0.0, one[1], other[1])
    x1, y1 = min(1.0, one[2], other[2]), min(1.0, one[3], other[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _on_grid(seen: SeenMap, common: View) -> Array | None:
    """Returns a map's part enlarged or reduced as a drawing of it, at 0 to 1; None where it has no structure."""
    cam = np.nan_to_num(seen.cam, posinf=0.0, neginf=0.0)
    if not cam.max() > 0:
        return None
    x0, y0, x1, y1 = common
    width, height = x1 - x0, y1 - y0
    left, top, right, bottom = seen.view
    within = ((left - x0) / width, (top - y0) / height, (right - x0) / width, (bottom - y0) / height)
    grid: Array = np.concatenate(list(placed(cam / cam.max(), within, _SIDE, _SIDE)))
    return None if grid.max() - grid.min() <= CONSTANT_RATIO * grid.max() else grid.astype(np.float64)
