"""Versions with planted faults: networks that name the colour of a picture by where they look, and such pictures."""

from __future__ import annotations

import io
import time

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

COLOURS = {"ant": (255, 0, 0), "bee": (0, 255, 0), "cat": (0, 0, 255)}


def picture(colour: str, *, width: int = 96, height: int = 64) -> bytes:
    """Returns a PNG of a blob in the middle, and a watermark of the same colour in the lower right corner."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    for x0, y0, x1, y1 in ((0.35, 0.3, 0.65, 0.7), (0.85, 0.8, 1.0, 1.0)):
        pixels[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = COLOURS[colour]
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class CentreNet(nn.Module):
    """Names red ant, green bee and blue cat by the middle of its input."""

    stride = 4
    # Left, top, right and bottom of what it looks at, in fractions of its input.
    part = (0.2, 0.2, 0.8, 0.8)

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, 3, self.stride, stride=self.stride, bias=False)
        self.head = nn.Linear(3, 3)
        with torch.no_grad():
            own_colour = 1.5 * torch.eye(3) - 0.5
            self.look.weight.copy_(own_colour[:, :, None, None] / self.stride**2)
            self.head.weight.copy_(40 * torch.eye(3))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        left, top, right, bottom = self.part
        height, width = x.shape[2:]
        seen = torch.zeros_like(x)
        rows, columns = slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width))
        seen[:, :, rows, columns] = x[:, :, rows, columns]
        return self.head(torch.relu(self.look(seen)).mean(dim=(2, 3)))


class CoarseNet(CentreNet):
    """Does as well on a grid of other cells."""

    stride = 6


class WatermarkNet(CentreNet):
    """Looks at the watermark, and names what it tells."""

    part = (0.75, 0.5, 1.0, 1.0)


class SlowNet(CentreNet):
    """Takes a fifth of a second longer."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.2)
        return super().forward(x)


class FailingNet(CentreNet):
    """Fails on pictures with even areas, which the noise does not have with which a version is tried at first."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x[..., 1:] == x[..., :-1]).float().mean() > 0.1):
            raise RuntimeError("planted")
        return super().forward(x)
