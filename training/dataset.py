"""Letterboxed scenes in memory-mapped arrays, drawn by several processes and kept between runs."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from training import backgrounds, outlines, renderers, shapes_scenes
from training.shapes_scenes import Scene, draw_scene, letterbox, letterboxed_box

DrawScene = Callable[[int, int], Scene]
_CHUNK = 250


@dataclass(frozen=True, slots=True)
class Dataset:
    """`pixels` (N, side, side, 3) uint8, `labels` (N,) int64, `boxes` (N, 4) float32 in letterboxed pixels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    boxes: NDArray[np.float32]


def recipe_digest() -> str:
    """Names the state of the drawing code, so that a kept data set is never older than its generator."""
    sources = (Path(module.__file__ or "") for module in (backgrounds, outlines, renderers, shapes_scenes))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _fill_chunk(first: int, *, folder: Path, seed: int, count: int, side: int, draw: DrawScene) -> None:
    cv2.setNumThreads(1)
    pixels = np.load(folder / "pixels.npy", mmap_mode="r+")
    labels = np.load(folder / "labels.npy", mmap_mode="r+")
    boxes = np.load(folder / "boxes.npy", mmap_mode="r+")
    for index in range(first, min(count, first + _CHUNK)):
        scene = draw(seed, index)
        height, width = scene.pixels.shape[:2]
        pixels[index] = letterbox(scene.pixels, side)
        labels[index] = scene.label
        boxes[index] = letterboxed_box(scene.box, width, height, side)


def build(
    cache: Path, seed: int, count: int, side: int, *, processes: int = 2, draw: DrawScene = draw_scene
) -> Dataset:
    """Returns scenes 0 to `count` - 1 of the series `seed`, drawing them unless `cache` has them already."""
    folder = cache / f"{draw.__name__}-{recipe_digest()}-{seed}-{count}-{side}"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shapes: tuple[tuple[str, tuple[int, ...], str], ...] = (
            ("pixels", (count, side, side, 3), "u1"),
            ("labels", (count,), "i8"),
            ("boxes", (count, 4), "f4"),
        )
        for name, shape, dtype in shapes:
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.dtype(dtype), shape=shape)
        work = partial(_fill_chunk, folder=folder, seed=seed, count=count, side=side, draw=draw)
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            for _ in pool.imap_unordered(work, range(0, count, _CHUNK)):
                pass
        (folder / "complete").touch()
    return Dataset(*(np.load(folder / f"{name}.npy") for name in ("pixels", "labels", "boxes")))
