"""The convolutional network of the bundled model `shapes`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def _unit(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch normalisation and ReLU that keep height and width (divided by `stride`)."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity path."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _unit(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        activated: Tensor = self.relu(x + self.second(self.first(x)))
        return activated


class Focus(nn.Module):
    """Multiplies a feature map by how much each place belongs to the object; the mean factor is 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, H, W) to the same shape."""
        scores: Tensor = self.score(x)
        share = scores.float().flatten(1).softmax(dim=1).view_as(scores)
        return x * (share * (scores.shape[2] * scores.shape[3])).to(x.dtype)


class ShapesNet(nn.Module):
    """Classifies one object from a map an eighth of the input's size.

    A fine branch keeps that map at stride 8, a coarse branch at stride 16 sees the whole object, and `joined`
    brings them together. `focus` fades what does not belong to the object, so that a small one is not outvoted by its
    background. The head is a global average and a linear layer: the class activation map of `focus` is a
    weighted sum of its channels.

    `widths` are the channels at strides 2, 4, 8 and 16, `blocks` the residual blocks at strides 4, 8 and 16.
    """

    def __init__(
        self,
        classes: int = 10,
        widths: Sequence[int] = (16, 32, 64, 96),
        blocks: Sequence[int] = (1, 1, 2),
        features: int = 64,
    ) -> None:
        super().__init__()
        half, quarter, fine, coarse = widths
        self.stem = nn.Sequential(
            _unit(3, half, stride=2),
            _unit(half, quarter, stride=2),
            *(Residual(quarter) for _ in range(blocks[0])),
        )
        self.fine = nn.Sequential(_unit(quarter, fine, stride=2), *(Residual(fine) for _ in range(blocks[1])))
        self.coarse = nn.Sequential(
            _unit(fine, coarse, stride=2),
            *(Residual(coarse) for _ in range(blocks[2])),
            _unit(coarse, fine, kernel=1),
            nn.Upsample(scale_factor=2.0, mode="nearest"),
        )
        self.joined = _unit(fine, features)
        self.focus = Focus(features)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(features, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps normalised (N, 3, H, W) pictures, H and W multiples of 16, to (N, classes) logits."""
        fine = self.fine(self.stem(x))
        focused = self.focus(self.joined(fine + self.coarse(fine)))
        logits: Tensor = self.classifier(self.pool(focused).flatten(1))
        return logits
