"""How images a second grow with what there is more of: pictures in a batch, callers, tenants, models."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.driver import Driver
from benchmarks.processes import memory
from benchmarks.service import RESNET, SHAPES, Service
from camserve_server.base.cores import cores
from camserve_server.engine.device import prepare_thread
from camserve_server.engine.inference import Explain
from camserve_server.engine.model import ModelVersion, load_version

BATCHES = (1, 2, 4, 8, 16, 32)
CALLERS = (1, 2, 4, 8, 16, 32)
TENANTS = (1, 4, 32)
MODELS = (1, 4, 16)
_ALL_CALLERS = 32
_SECONDS = 3.0
# 32 callers at once wait longer than a service with default settings lets them.
_PATIENT = {"CAMSERVE_QUEUE_WAIT_S": "60"}

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Growth:
    """Images a second by how many there are; `memory_mb` is the replica's with its workers, by the models loaded."""

    batches: dict[str, dict[int, float]]
    callers: dict[int, float]
    tenants: dict[int, float]
    models: dict[int, float]
    memory_mb: dict[int, float]


def measure_growth(folder: Path, models_dir: Path, picture: Path, *, rounds: int, report: Report) -> Growth:
    """Measures the engine alone, then the service with `shapes` and a heatmap over gRPC; medians of the rounds."""
    batches = {name: _by_batch(models_dir / name, rounds, report) for name in (SHAPES, RESNET)}
    with Driver("load", folder) as load:
        load.hello()
        with Service(folder / "growth", models_dir, _PATIENT) as service:
            ask = _Asking(load, service, picture)
            everybody = [service.token_of(f"tenant-{number}") for number in range(max(TENANTS))]
            report("callers")
            callers = _in_turns(CALLERS, rounds, lambda count: ask.images_per_s(count, [service.token]))
            report("tenants")
            tenants = _in_turns(TENANTS, rounds, lambda count: ask.images_per_s(_ALL_CALLERS, everybody[:count]))
        models, memory_mb = {}, {}
        for count in MODELS:
            report(f"{count} models")
            copies = _copies(models_dir / SHAPES, folder / f"growth-models-{count}", count)
            with Service(folder / f"growth-{count}", copies, _PATIENT) as service:
                ask = _Asking(load, service, picture)
                models[count] = median(ask.images_per_s(8, [service.token]) for _ in range(rounds))
                pids = service.pids()
                memory_mb[count] = memory(pids["replica"] + pids["imaging worker"]).once_mb
    return Growth(batches, callers, tenants, models, memory_mb)


@dataclass(frozen=True, slots=True)
class _Asking:
    load: Driver
    service: Service
    picture: Path

    def images_per_s(self, callers: int, tokens: Sequence[str]) -> float:
        sample: dict[str, Any] = self.load.ask(
            picture=str(self.picture),
            model=SHAPES,
            cam=True,
            concurrency=callers,
            warm_up_s=_SECONDS / 3,
            seconds=_SECONDS,
            way="grpc",
            target=self.service.grpc_target,
            tokens=tokens,
        )
        if sample["errors"]:
            raise RuntimeError(f"calls failed: {sample['errors']}")
        return 1000 / float(sample["ms_per_image"])


def _by_batch(folder: Path, rounds: int, report: Report) -> dict[int, float]:
    """Returns pictures a second of the engine alone, a Grad-CAM of the default layer for each."""
    report(f"batches of {folder.name}")
    device = torch.device("cpu")
    prepare_thread(device, cores())
    model = load_version(_newest(folder), device, max_batch=max(BATCHES), weights_dir=None)
    assert model.default_layer is not None
    explain = Explain(model.default_layer, "gradcam", None)
    shape = (max(BATCHES), model.input.height, model.input.width, 3)
    noise = list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return _in_turns(BATCHES, 3 * rounds, lambda count: _pictures_per_s(model, noise[:count], explain))


def _pictures_per_s(model: ModelVersion, pictures: list[np.ndarray[Any, Any]], explain: Explain) -> float:
    started = time.perf_counter()
    model.run(pictures, [explain] * len(pictures))
    return len(pictures) / (time.perf_counter() - started)


def _in_turns(counts: Sequence[int], rounds: int, measure: Callable[[int], float]) -> dict[int, float]:
    found: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(rounds):
        for count in counts if number % 2 == 0 else reversed(counts):
            found[count].append(measure(count))
    return {count: median(values) for count, values in found.items()}


def _newest(folder: Path) -> Path:
    return max(folder.iterdir(), key=lambda version: int(version.name))


def _copies(shapes: Path, folder: Path, count: int) -> Path:
    """Makes a models folder with `shapes` and copies of it under other names, `count` in all."""
    for name in _names(count):
        version = shutil.copytree(_newest(shapes), folder / name / _newest(shapes).name)
        manifest = version / "model.toml"
        manifest.write_text(manifest.read_text().replace(f'name = "{SHAPES}"', f'name = "{name}"', 1))
    return folder


def _names(count: int) -> Iterator[str]:
    yield SHAPES
    yield from (f"{SHAPES}-{number}" for number in range(1, count))


def draw_growth(growth: Growth, folder: Path) -> None:
    """Writes `growth.svg` into a folder: what a report shows of the figures."""
    # Not for those who only want the tables.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    parts = figure.subplots(2, 2)
    for name, values in growth.batches.items():
        peak = max(values.values())
        _draw(parts[0][0], "pictures in a batch", {count: value / peak for count, value in values.items()}, label=name)
    parts[0][0].set_ylabel("engine alone, share of its best")
    parts[0][0].legend()
    for place, title, values in (
        (parts[0][1], "callers", growth.callers),
        (parts[1][0], "tenants, 32 callers", growth.tenants),
        (parts[1][1], "models loaded, 8 callers", growth.models),
    ):
        _draw(place, title, values)
        place.set_ylabel("images/s")
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "growth.svg", metadata={"Date": None})


def _draw(place: Any, title: str, values: dict[int, float], **style: Any) -> None:
    counts: Iterable[int] = values.keys()
    place.plot([str(count) for count in counts], values.values(), marker="o", **style)
    place.set_xlabel(title)
    place.margins(y=0.1)
    place.set_ylim(bottom=0)
    place.grid(axis="y", alpha=0.3)
