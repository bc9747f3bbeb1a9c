"""Accuracy, calibration and localisation of a shapes network on a data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from camserve_server.engine.architectures.shapes import ShapesNet
from training.dataset import Dataset

MEAN, STD = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the network said about each picture of a data set, and what was true."""

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    peak_inside: NDArray[np.bool_]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the top class is the drawn one, for each picture."""
        return np.asarray(self.logits.argmax(axis=1) == self.labels)


def normalised(pixels: NDArray[np.uint8]) -> Tensor:
    """Turns (N, H, W, 3) uint8 into the network's (N, 3, H, W) float32."""
    batch = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float()
    return ((batch / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


def explain(network: ShapesNet, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Returns (N, classes) logits and the (N, h, w) Grad-CAM of each top class at `focus`, by autograd."""
    kept: list[Tensor] = []

    def cut(_module: object, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[0]

    handle = network.focus.register_forward_hook(cut)
    try:
        logits = network(batch)
    finally:
        handle.remove()
    (gradients,) = torch.autograd.grad(logits.max(dim=1).values.sum(), kept)
    cam = functional.relu((gradients.mean(dim=(2, 3), keepdim=True) * kept[0].detach()).sum(dim=1))
    return logits.detach(), cam


def peaks_inside(cam: Tensor, boxes: NDArray[np.float32], side: int) -> NDArray[np.bool_]:
    """Tells for each (h, w) map, enlarged bilinearly to `side`, whether its highest pixel lies in the box."""
    large = functional.interpolate(cam[:, None], size=(side, side), mode="bilinear", align_corners=False)
    peak = large.flatten(1).argmax(dim=1).numpy()
    x, y = peak % side + 0.5, peak // side + 0.5
    return np.asarray((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3]))


def examine(network: ShapesNet, dataset: Dataset, batch_size: int = 100) -> Outcome:
    """Runs the network in evaluation mode and float32 over the whole data set."""
    network.eval()
    logits, inside = [], []
    for first in range(0, len(dataset.labels), batch_size):
        rows = slice(first, first + batch_size)
        scores, cam = explain(network, normalised(dataset.pixels[rows]))
        logits.append(scores.numpy())
        inside.append(peaks_inside(cam, dataset.boxes[rows], dataset.pixels.shape[1]))
    return Outcome(
        np.concatenate(logits).astype(np.float64), np.array(dataset.labels), np.concatenate(inside).astype(np.bool_)
    )
