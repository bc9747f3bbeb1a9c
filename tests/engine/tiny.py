"""Small models for tests: a network with the traits that matter, and folders that describe one."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

SIDE = 32
CLASSES = ("ant", "bee", "cat")


class Block(nn.Module):
    """A residual block that adds and rectifies in place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        out += x
        return self.relu(out)


class TinyNet(nn.Module):
    """Three classes of 32 x 32 pictures; `shared` runs twice, `aside` leads nowhere."""

    def __init__(self, classes: int = len(CLASSES)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.aside = nn.Conv2d(8, 8, 1)
        self.body = nn.Sequential(Block(8), Block(8))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, classes)
        nn.init.normal_(self.head.weight, std=3.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.shared(self.stem(x)))
        self.aside(x)
        return self.head(torch.flatten(self.pool(self.body(x)), 1))


class PoisonedNet(TinyNet):
    """Fails on every batch that holds a white picture."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x.amin(dim=(1, 2, 3)) >= 1).any()):
            raise RuntimeError("poison")
        return super().forward(x)


def tiny_toml(**tables: str) -> str:
    """Returns a manifest's text; a keyword replaces a table's body, or `top` the keys before the tables."""
    bodies = {
        "architecture": 'builder = "tests.engine.tiny:TinyNet"',
        "weights": "random = 0",
        "input": (f'width = {SIDE}\nheight = {SIDE}\nfit = "pad"\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]'),
    } | tables
    top = bodies.pop("top", 'aliases = ["stable"]')
    return "\n".join(
        ['name = "{name}"', 'version = "{version}"', 'labels = "labels.json"', top]
        + [f"\n[{table}]\n{body}" for table, body in bodies.items() if body is not None]
    )


def write_model(models_dir: Path, name: str = "tiny", version: str = "1", **tables: str | None) -> Path:
    """Writes `<models_dir>/<name>/<version>` with TinyNet's manifest and labels; returns the folder."""
    folder = models_dir / name / version
    folder.mkdir(parents=True)
    text = tiny_toml(**tables).replace("{name}", name).replace("{version}", version)
    (folder / "model.toml").write_text(text)
    labels = [{"id": word, "label": word.title()} for word in CLASSES]
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


class Gate:
    """Lets a test see that a thread has come to a point, and lets the thread go on."""

    def __init__(self) -> None:
        self.reached, self.free = threading.Event(), threading.Event()

    def shut(self) -> None:
        self.reached.clear()
        self.free.clear()


HELD = Gate()


class HeldNet(TinyNet):
    """Takes as long to build as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        HELD.reached.set()
        HELD.free.wait()


class HeavyNet(TinyNet):
    """Takes 400 kB of memory more."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ballast", torch.zeros(100_000))


class SlowNet(TinyNet):
    """Takes a tenth of a second for each picture."""

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.1 * len(x))
        return super().forward(x)


class BareNet(TinyNet):
    """Gives out a vector instead of rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0]


class MixingNet(TinyNet):
    """Lets the pictures of a batch influence each other."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 9 * x.mean(dim=(0, 1, 2, 3)) * torch.arange(3)


class FaultyNet(TinyNet):
    """Does to its scores what the test says, and keeps the size of each batch."""

    fault: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        scores = super().forward(x)
        return scores if self.fault is None else self.fault(x, scores)


class SwitchedNet(TinyNet):
    """Fails while the file is there that the environment names, so that a test may break it in another process.

    The file may say how: `memory`, `nan`, `slow` by a second, or `hang` for as long as it is there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return broken_by_file(super().forward(x))


class SwitchedResNet(nn.Module):
    """ResNet-18 with the faults of SwitchedNet."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18

        self.net = resnet18()

    def forward(self, x: Tensor) -> Tensor:
        return broken_by_file(self.net(x))


def broken_by_file(scores: Tensor) -> Tensor:
    fault = Path(os.environ["TINY_FAULT"])
    if not fault.exists():
        return scores
    how = fault.read_text()
    if how == "slow":
        time.sleep(1)
        return scores
    if how == "hang":
        while fault.exists():
            time.sleep(0.05)
        return scores
    if how == "nan":
        return scores * torch.nan
    raise torch.OutOfMemoryError("CUDA out of memory") if how == "memory" else RuntimeError("broken")
