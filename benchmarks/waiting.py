"""A model that takes its time and no core, as one on a device elsewhere does."""

from __future__ import annotations

import json
import time
from pathlib import Path

from torch import Tensor, nn

WAITING = "waiting"
PASS_S = 0.05

_MANIFEST = f"""
name = "{WAITING}"
version = "1"
labels = "labels.json"
aliases = ["stable"]

[architecture]
builder = "benchmarks.waiting:WaitingNet"

[weights]
random = 0

[input]
width = 224
height = 224
fit = "pad"
mean = [0.0, 0.0, 0.0]
std = [1.0, 1.0, 1.0]
"""


class WaitingNet(nn.Module):
    """Two classes, after 50 ms for a batch of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 8, stride=8)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Returns scores (N, 2)."""
        time.sleep(PASS_S)
        scores: Tensor = self.head(self.body(x).mean(dim=(2, 3)))
        return scores


def write_waiting(models_dir: Path) -> None:
    """Writes the model's folder."""
    folder = models_dir / WAITING / "1"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(_MANIFEST)
    (folder / "labels.json").write_text(json.dumps([{"id": name, "label": name} for name in ("one", "two")]))
