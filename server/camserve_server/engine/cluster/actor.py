"""What runs in an actor's process: one copy of a model version."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from camserve_server.base.guard import die_with_parent
from camserve_server.base.logs import configure_logs
from camserve_server.engine.device import choose_device, prepare_thread
from camserve_server.engine.footprint import release_heap, release_library_pages
from camserve_server.engine.golden import GoldenState
from camserve_server.engine.inference import Explain
from camserve_server.engine.model import ModelVersion, golden_rerun, load_version
from camserve_server.engine.rescue import Ran, run_batch


@dataclass(frozen=True, slots=True)
class Order:
    """What an actor loads, and how; the paths are those of its own machine."""

    folder: Path
    device: str
    threads: int
    max_batch: int
    weights_dir: Path | None
    earlier: tuple[Path, ...]


class ModelActor:
    """Loads a version and runs its batches; Ray calls it on one thread, which owns the device as a version's must."""

    def __init__(self, order: Order) -> None:
        """Loads, warms up and checks the golden inputs; raises ValueError when the device is not there."""
        # A node that is killed takes it along, whatever it does just then.
        die_with_parent(signal.SIGKILL)
        configure_logs("info")
        device = choose_device(order.device)
        prepare_thread(device, order.threads)
        self._folder = order.folder
        self._model = load_version(
            order.folder,
            device,
            max_batch=order.max_batch,
            weights_dir=order.weights_dir,
            earlier=order.earlier,
        )
        release_heap()
        if device.type == "cpu":
            release_library_pages()

    def describe(self) -> ModelVersion:
        """Returns the version without its module, whatever its state."""
        return replace(self._model, module=None, preprocess=None, device=torch.device("cpu"))

    def run(self, pictures: NDArray[np.uint8], explains: Sequence[Explain | None]) -> Ran:
        """Runs a batch (N, H, W, 3) uint8 as in process: what fails alone, and what memory is too short for, too."""
        return run_batch(self._model, list(pictures), explains)

    def check_golden(self) -> tuple[GoldenState, str | None]:
        """Runs the golden inputs anew; returns what they come to, and why they fail."""
        model = golden_rerun(self._folder, self._model)
        return model.golden, model.golden_reason

    def answers(self) -> bool:
        """Returns that the actor lives."""
        return True
