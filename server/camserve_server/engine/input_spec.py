"""What a model version wants to see: the size of its input and how a picture is fitted into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The geometry of a model's input, in pixels.

    `fit`: "crop" resizes so that the shorter side is `resize_px` (default: the larger of width and
    height), then takes the centre; "pad" fits the whole picture in and fills the rest with
    `pad_color`; "squash" stretches. Resizing is antialiased.
    """

    width: int
    height: int
    fit: Literal["crop", "pad", "squash"] = "crop"
    resize_px: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad_color: tuple[int, int, int] = (128, 128, 128)
