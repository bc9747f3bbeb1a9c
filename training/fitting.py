"""The optimisation loop of the shapes network."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from camserve_server.engine.architectures.shapes import ShapesNet
from training.dataset import Dataset
from training.evaluation import MEAN, STD

_REPORT_EVERY = 100


@dataclass(frozen=True, slots=True)
class Round:
    """One cosine schedule: steps on windows around the objects, then steps on whole pictures."""

    close_steps: int
    full_steps: int
    peak_rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides one version: the network, its data and the schedules."""

    version: str
    side: int
    network: dict[str, Any]
    train_count: int
    rounds: tuple[Round, ...]
    close_batch: int = 128
    full_batch: int = 64
    weight_decay: float = 0.02
    label_smoothing: float = 0.02
    focus_weight: float = 0.2
    ema_decay: float = 0.998


def _cells(boxes: Tensor, side: int, cells: int) -> Tensor:
    """Returns (N, cells, cells) bool: which cell centres lie in the box, at least the one nearest its centre."""
    centers = (torch.arange(cells) + 0.5) * (side / cells)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = []
    for axis in range(2):
        within = (centers >= boxes[:, axis, None]) & (centers <= boxes[:, axis + 2, None])
        nearest = (centers - middle[:, axis, None]).abs().argmin(dim=1)
        inside.append(within | functional.one_hot(nearest, cells).bool())
    return inside[1][:, :, None] & inside[0][:, None, :]


def _turned(pixels: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Turns and mirrors each eighth of the batch differently, pictures and cells alike."""
    pictures, grids = [], []
    for turn, (part, grid) in enumerate(zip(pixels.chunk(8), cells.chunk(8), strict=True)):
        part, grid = torch.rot90(part, turn % 4, (1, 2)), torch.rot90(grid, turn % 4, (1, 2))
        pictures.append(part.flip(2) if turn >= 4 else part)
        grids.append(grid.flip(2) if turn >= 4 else grid)
    return torch.cat(pictures), torch.cat(grids)


def _recolored(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Normalises (N, H, W, 3) bytes to (N, 3, H, W) and varies their colours.

    Swaps channels, inverts some pictures, and changes contrast and brightness.
    """
    count = len(pixels)
    order = torch.from_numpy(np.argsort(rng.random((count, 3)), axis=1))
    sign = np.where(rng.random(count) < 0.3, -1.0, 1.0)
    gain = torch.from_numpy(sign * rng.uniform(0.75, 1.1, count) / (255 * STD)).float()
    lift = torch.from_numpy(rng.uniform(-0.15, 0.15, count)).float() - 255 * MEAN * gain
    # A channel swap is a product with a permutation matrix; it carries gain and lift along in one pass.
    swap = functional.one_hot(order, 3).float() * gain[:, None, None]
    mixed = torch.baddbmm(lift[:, None, None], pixels.flatten(1, 2).float(), swap)
    return mixed.view(pixels.shape).permute(0, 3, 1, 2)


def _close_up(
    pixels: NDArray[np.uint8], box: NDArray[np.float32], side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Cuts a window of `side` around a small object, or shrinks the picture to it where the object is large."""
    if float((box[2:] - box[:2]).max()) > 0.9 * side:
        scale = side / pixels.shape[1]
        return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8), box * scale
    low = np.maximum(0, np.ceil(box[2:] - side)).astype(int)
    high = np.minimum(pixels.shape[1] - side, np.floor(box[:2])).astype(int)
    x, y = (int(rng.integers(first, max(first, last) + 1)) for first, last in zip(low, high, strict=True))
    return pixels[y : y + side, x : x + side], box - np.array([x, y, x, y], dtype=np.float32)


def _batches(dataset: Dataset, side: int, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields (pictures, labels, cells in the box) for ever, in a new order each time around."""
    rng = np.random.default_rng((seed, side))
    while True:
        order = rng.permutation(len(dataset.labels))
        for first in range(0, len(order) - batch_size + 1, batch_size):
            rows = order[first : first + batch_size]
            pixels, boxes = dataset.pixels[rows], dataset.boxes[rows]
            if side != pixels.shape[1]:
                cut = [_close_up(*pair, side, rng) for pair in zip(pixels, boxes, strict=True)]
                pixels, boxes = np.stack([pair[0] for pair in cut]), np.stack([pair[1] for pair in cut])
            cells = _cells(torch.from_numpy(boxes), side, side // 8)
            turned, cells = _turned(torch.from_numpy(pixels), cells)
            yield _recolored(turned, rng), torch.from_numpy(dataset.labels[rows]), cells


def _focus_loss(scores: Tensor, cells: Tensor) -> Tensor:
    """Pulls the places the network looks at towards the box: cross entropy with an even spread over its cells."""
    target = cells.flatten(1).float()
    target = target / target.sum(dim=1, keepdim=True)
    return -(target * scores.float().flatten(1).log_softmax(dim=1)).sum(dim=1).mean()


def _optimizer(network: nn.Module, peak_rate: float, weight_decay: float) -> torch.optim.Optimizer:
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    plain = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak_rate, fused=True)


def fit(
    recipe: Recipe, plan: Round, dataset: Dataset, seed: int, start: ShapesNet | None = None, keep: Path | None = None
) -> ShapesNet:
    """Trains one round, in bfloat16 where the CPU has it, and returns the averaged weights in evaluation mode.

    The first steps see windows of half the side around the objects, which cost a quarter; the rest see whole
    pictures. `start` continues from its weights; `keep` names a file
    that receives the averaged weights as they become.
    """
    torch.manual_seed(seed)
    network = (start or ShapesNet(**recipe.network)).to(memory_format=torch.channels_last)
    average = copy.deepcopy(network).eval()
    optimizer = _optimizer(network, plan.peak_rate, recipe.weight_decay)
    steps = plan.close_steps + plan.full_steps
    warmup = min(300, steps // 10)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    batches = chain(
        islice(_batches(dataset, recipe.side // 2, recipe.close_batch, seed), plan.close_steps),
        islice(_batches(dataset, recipe.side, recipe.full_batch, seed), plan.full_steps),
    )
    # Without instructions for it bfloat16 is emulated and ten times slower than float32.
    fast_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    kept: list[Tensor] = []
    handle = network.focus.score.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    network.train()
    seen, hits, total = 0, 0, 0.0
    for step, (batch, labels, cells) in enumerate(batches):
        kept.clear()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16):
            logits = network(batch).float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)
        focus = _focus_loss(kept[0], cells)
        optimizer.zero_grad()
        torch.autograd.backward(loss + recipe.focus_weight * focus)
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        _blend(average, network, min(recipe.ema_decay, (1 + step) / (10 + step)))
        seen, hits = seen + len(labels), hits + int((logits.argmax(1) == labels).sum())
        total += float(focus.detach())
        if (step + 1) % _REPORT_EVERY == 0:
            print(f"step {step + 1}: accuracy {hits / seen:.4f}, focus {total / _REPORT_EVERY:.3f}", flush=True)
            seen, hits, total = 0, 0, 0.0
            if keep is not None:
                save_file({name: value.contiguous() for name, value in average.state_dict().items()}, keep)
    handle.remove()
    return average


@torch.no_grad()
def _blend(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the averaged weights and statistics towards the current ones."""
    for kept, current in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if kept.dtype.is_floating_point:
            kept.lerp_(current, 1 - decay)
        else:
            kept.copy_(current)
