"""Where a picture lands in a model's input, and which part of it the model sees."""

from __future__ import annotations

from dataclasses import dataclass

from camserve_server.engine.input_spec import InputSpec

# The largest side that a heatmap is drawn at.
MAX_DRAWING_PX = 4096


@dataclass(frozen=True, slots=True)
class Placement:
    """The picture resized to `resized` and the input as a window on it, which may reach beyond its borders.

    `left` and `top` are the window's corner in the resized picture, negative where the input has a margin.
    """

    resized: tuple[int, int]
    left: int
    top: int
    window: tuple[int, int]

    @property
    def view(self) -> tuple[float, float, float, float]:
        """The window (x0, y0, x1, y1) in fractions of the picture; outside 0..1 in the margins."""
        (width, height), (across, down) = self.resized, self.window
        return (
            self.left / width,
            self.top / height,
            (self.left + across) / width,
            (self.top + down) / height,
        )

    @property
    def seen(self) -> tuple[int, int, int, int]:
        """The part of the resized picture inside the window: left, top, right, bottom."""
        (width, height), (across, down) = self.resized, self.window
        return (
            max(0, self.left),
            max(0, self.top),
            min(width, self.left + across),
            min(height, self.top + down),
        )


def place(width: int, height: int, spec: InputSpec) -> Placement:
    """Fit an upright picture of this size into a model's input."""
    window = (spec.width, spec.height)
    if spec.fit == "squash":
        return Placement(window, 0, 0, window)
    if spec.fit == "pad":
        scale = min(spec.width / width, spec.height / height)
        resized = (max(1, round(width * scale)), max(1, round(height * scale)))
    else:
        # The longer side is cut to a whole number, as torchvision's Resize does.
        shorter = spec.resize_px or max(window)
        resized = (
            (shorter, max(1, shorter * height // width))
            if width <= height
            else (max(1, shorter * width // height), shorter)
        )
    return Placement(resized, round((resized[0] - spec.width) / 2), round((resized[1] - spec.height) / 2), window)


def longest_side(width: int, height: int, limit_px: int | None) -> tuple[int, int]:
    """Return the size after shrinking the longer side to `limit_px`; never larger than before."""
    if limit_px is None or max(width, height) <= limit_px:
        return width, height
    scale = limit_px / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
