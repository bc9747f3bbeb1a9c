"""Turns contours into coverage masks in the ways different drawing programs do."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from training.outlines import Contours

Mask = NDArray[np.uint8]
Style = Literal["supersampled", "cv_smooth", "cv_hard", "pil_hard"]
STYLES: tuple[Style, ...] = ("supersampled", "supersampled", "cv_smooth", "cv_hard", "pil_hard")

_SHIFT = 4


def _fixed(points: NDArray[np.float64], scale: float = 1.0) -> NDArray[np.int32]:
    return np.round((points * scale - 0.5) * (1 << _SHIFT)).astype(np.int32)


def fill(contours: Contours, width: int, height: int, style: Style, factor: int = 3) -> Mask:
    """Returns the (height, width) uint8 coverage, 0 to 255, of contours in pixels, filled even-odd."""
    if style == "pil_hard":
        image = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(image)
        for number, points in enumerate(contours):
            draw.polygon([(float(x), float(y)) for x, y in points], fill=0 if number else 255)
        return np.asarray(image)
    if style == "supersampled":
        large = np.zeros((height * factor, width * factor), dtype=np.uint8)
        cv2.fillPoly(large, [_fixed(points, factor) for points in contours], 255, cv2.LINE_8, _SHIFT)
        return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    line = cv2.LINE_AA if style == "cv_smooth" else cv2.LINE_8
    cv2.fillPoly(mask, [_fixed(points) for points in contours], 255, line, _SHIFT)
    return mask


def stroke(contours: Contours, width: int, height: int, style: Style, line_px: float, factor: int = 3) -> Mask:
    """Returns the (height, width) uint8 coverage of a line of `line_px` along contours in pixels."""
    if style == "pil_hard":
        image = Image.new("L", (width, height), 0)
        draw = ImageDraw.Draw(image)
        # Without a joint Pillow leaves notches at the corners, with it they are round: both are seen in the wild.
        joint = "curve" if factor == 3 else None
        for points in contours:
            path = [(float(x), float(y)) for x, y in (*points, points[0])]
            draw.line(path, fill=255, width=max(1, round(line_px)), joint=joint)
        return np.asarray(image)
    if style == "supersampled":
        large = np.zeros((height * factor, width * factor), dtype=np.uint8)
        paths = [_fixed(points, factor) for points in contours]
        thickness = max(1, round(line_px * factor))
        cv2.polylines(large, paths, True, 255, thickness, cv2.LINE_8, _SHIFT)
        return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    mask = np.zeros((height, width), dtype=np.uint8)
    line = cv2.LINE_AA if style == "cv_smooth" else cv2.LINE_8
    cv2.polylines(mask, [_fixed(points) for points in contours], True, 255, max(1, round(line_px)), line, _SHIFT)
    return mask


def inner_stroke(contours: Contours, width: int, height: int, line_px: float, factor: int = 3) -> Mask:
    """Returns the coverage of a border of `line_px` inside the filled contours, with mitred corners."""
    large = np.zeros((height * factor, width * factor), dtype=np.uint8)
    cv2.fillPoly(large, [_fixed(points, factor) for points in contours], 255, cv2.LINE_8, _SHIFT)
    depth = cv2.distanceTransform(large, cv2.DIST_L2, 3)
    large[depth > max(1.0, line_px * factor)] = 0
    return np.asarray(cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
