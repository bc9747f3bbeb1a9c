"""Scores of picture files, decoded by the imaging workers as those of callers are."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.imaging import DecodeRequest, ImagingPool
from camserve_server.engine.model import ModelVersion

Pixels = NDArray[np.uint8]
Scores = NDArray[np.float64]


def _nothing(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Scorer:
    """Runs a version over files in batches; `thread` is the one that loaded it."""

    model: ModelVersion
    pool: ImagingPool
    thread: Executor
    batch: int

    async def score(self, paths: Sequence[Path], note: Callable[[int], None] = _nothing) -> list[Scores | ApiError]:
        """Returns the scores (C,) of each file before temperature and softmax, or why it cannot be decoded, in order.

        While the thread works, the workers decode the next batch; `note` is told how many pictures each had. Raises
        OSError for a file that cannot be read.
        """
        scored: list[Scores | ApiError] = []
        starts = range(0, len(paths), self.batch)
        ahead: asyncio.Task[list[Pixels | ApiError]] | None = None
        try:
            for start in starts:
                decoded = await (ahead or self._decode(paths[start : start + self.batch]))
                following = paths[start + self.batch : start + 2 * self.batch]
                ahead = asyncio.create_task(self._decode(following))
                pictures = [each for each in decoded if not isinstance(each, ApiError)]
                rows = iter(await asyncio.get_running_loop().run_in_executor(self.thread, self._run, pictures))
                scored += [each if isinstance(each, ApiError) else next(rows) for each in decoded]
                note(len(decoded))
        finally:
            if ahead is not None:
                await ended([ahead])
        return scored

    async def _decode(self, paths: Sequence[Path]) -> list[Pixels | ApiError]:
        return await asyncio.gather(*(self._decode_one(path) for path in paths))

    async def _decode_one(self, path: Path) -> Pixels | ApiError:
        # The workers read the file itself. Its name declares nothing: in folders of pictures many are wrong.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with SharedBuffer(fd, os.fstat(fd).st_size) as file:
            try:
                with await self.pool.decode(file, DecodeRequest(self.model.input), background=True) as image:
                    return image.pixels.copy()
            except ApiError as error:
                return error

    def _run(self, pictures: list[Pixels]) -> list[Scores]:
        if not pictures:
            return []
        assert self.model.module is not None
        assert self.model.preprocess is not None
        with torch.inference_mode():
            scores = self.model.module(self.model.preprocess(pictures))
        return list(scores.double().cpu().numpy())
