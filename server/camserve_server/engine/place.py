"""Where model versions run: in this process, or wherever a cluster has room for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from camserve_server.base.cores import cores
from camserve_server.engine.batcher import Batcher
from camserve_server.engine.device import choose_device, memory_bytes, prepare_thread
from camserve_server.engine.footprint import release_heap, release_library_pages
from camserve_server.engine.lanes import LaneRunner
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.runner import Ended, Queue, Runner

# How long a batch has the device to itself. A CPU pass takes about as long, so most batches still have all cores; a
# GPU pass is shorter, and what runs beside it there takes turns with it by kernels.
_TURN_S = 0.1

OnEnd = Callable[[ModelVersion, Ended], None]


class Place(Protocol):
    """Gives each version what runs it.

    `turn_s` is how long a batch of one version keeps those of the others waiting; `shares_cores` says whether the
    models run on the cores that also decode and draw.
    """

    turn_s: float
    shares_cores: bool

    async def start(self) -> None:
        """Comes before everything else; raises OperatorError when there is no such place."""

    async def settle(self) -> None:
        """Comes once the first versions are loaded."""

    async def close(self) -> None:
        """Lets go of everything."""

    def memory_bytes(self) -> dict[str, int]:
        """Returns bytes of memory of the device by kind, see `device.memory_bytes`; may be asked from any thread."""

    def runner(self, queue: Queue, batcher: Batcher, on_end: OnEnd, monotonic: Callable[[], float]) -> Runner:
        """Returns what loads and runs one version."""


class Here:
    """This process: a thread for each version, which take turns at one device."""

    turn_s = _TURN_S

    def __init__(
        self,
        *,
        device: str,
        threads: int | None,
        max_batch: int,
        weights_dir: Path | None,
        earlier: Callable[[Path], list[Path]],
    ) -> None:
        """Checks the device; ValueError when it is not there. `earlier` finds the versions before a folder's."""
        self._device = choose_device(device)
        self._threads = threads or cores()
        self._max_batch = max_batch
        self._weights_dir = weights_dir
        self._earlier = earlier
        self.shares_cores = self._device.type == "cpu"

    async def start(self) -> None:
        """There is nothing to start."""

    async def settle(self) -> None:
        """Gives back what importing and loading took and serving does not need."""
        if self.shares_cores:
            await asyncio.to_thread(release_library_pages)

    async def close(self) -> None:
        """The threads end with their versions."""

    def memory_bytes(self) -> dict[str, int]:
        """Returns that of the GPU, nothing for the CPU."""
        return memory_bytes(self._device)

    def runner(self, queue: Queue, batcher: Batcher, on_end: OnEnd, monotonic: Callable[[], float]) -> Runner:
        """Returns a thread for one version, or several on a CPU of several cores."""
        if self.shares_cores and self._threads > 1:
            return LaneRunner(queue, batcher, self.read, threads=self._threads, on_end=on_end, monotonic=monotonic)
        return Runner(queue, batcher, self.read, on_end=on_end, monotonic=monotonic)

    def read(self, folder: Path) -> ModelVersion:
        """Brings a folder's version to the device, on the thread in which it will run."""
        prepare_thread(self._device, self._threads)
        model = load_version(
            folder,
            self._device,
            max_batch=self._max_batch,
            weights_dir=self._weights_dir,
            earlier=self._earlier(folder),
        )
        release_heap()
        return model
