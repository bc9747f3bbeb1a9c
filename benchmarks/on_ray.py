"""Models as actors on a Ray cluster of one, two and three nodes on this machine, beside the same models in process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from benchmarks.report import Verdict, number, table
from benchmarks.sections import Findings, Place, Plan
from benchmarks.service import SHAPES
from benchmarks.waiting import WAITING, write_waiting
from camserve_server.base.config import prepare_ray
from camserve_server.engine.cluster.settings import ClusterSettings
from camserve_server.engine.engine import Engine, EngineSettings, Explain

_NODES = (1, 2, 3)
_CALLERS = 48
_MAX_BATCH = 8
_STORE_BYTES = 100 << 20
_WARM_UP_CALLS = 20
# A busy machine takes its time.
_LOAD_WAIT_S = 120.0
_EXPLAIN = Explain("auto", "gradcam", None)


@dataclass(frozen=True, slots=True)
class Latency:
    """Medians of one call in milliseconds, in turns, and of what the second takes more than the one before it."""

    model: str
    here_ms: float
    actor_ms: float
    adds_ms: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Pictures a second of a model; `nodes` 0 is this process."""

    model: str
    nodes: int
    per_s: float


def ray(place: Place, plan: Plan) -> Findings:
    """Models on a cluster."""
    prepare_ray(own=True)
    models_dir = place.folder / "ray-models"
    write_waiting(models_dir)
    (models_dir / SHAPES).mkdir()
    (models_dir / SHAPES / "2").symlink_to(place.shapes / "2")
    with structlog.testing.capture_logs():
        latencies, rates = asyncio.run(_measure(models_dir, place, plan))
    rows = [(one.model, *(number(value) for value in (one.here_ms, one.actor_ms, one.adds_ms))) for one in latencies]
    print(table("One call at a time, p50 in ms", ("model", "in process", "on Ray", "Ray adds"), rows))
    by_model = {model: {one.nodes: one.per_s for one in rates if one.model == model} for model in (SHAPES, WAITING)}
    header = ("model", "in process", *(f"{nodes} on Ray" for nodes in _NODES))
    rows = [(model, *(number(found[nodes]) for nodes in (0, *_NODES))) for model, found in by_model.items()]
    print(table(f"Pictures a second by nodes, {_CALLERS} callers", header, rows))
    return Findings(
        {"latencies": [asdict(one) for one in latencies], "rates": [asdict(one) for one in rates]},
        [
            *(Verdict(f"Ray adds to a call, {one.model}, p50", one.adds_ms, 3, " ms") for one in latencies),
            Verdict(
                "3 nodes / 1 node, a model that takes no core",
                by_model[WAITING][3] / by_model[WAITING][1],
                2.4,
                at_least=True,
            ),
        ],
    )


async def _measure(models_dir: Path, place: Place, plan: Plan) -> tuple[list[Latency], list[Rate]]:
    calls, seconds = (100, 3.0) if plan.quick else (400, 8.0)
    latencies: list[Latency] = []
    rates: list[Rate] = []
    async with _engine(models_dir, None, 1) as here:
        rates += [Rate(model, 0, await _rate(here, model, seconds)) for model in (SHAPES, WAITING)]
        cluster = _new_cluster()
        try:
            for nodes in _NODES:
                place.progress(f"{nodes} nodes of Ray")
                # Only in the main thread, whose signals it handles.
                cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
                async with _engine(models_dir, cluster.address, nodes) as actors:
                    if nodes == 1:
                        latencies = [await _latency(here, actors, model, calls) for model in (SHAPES, WAITING)]
                    rates += [Rate(model, nodes, await _rate(actors, model, seconds)) for model in (SHAPES, WAITING)]
        finally:
            cluster.shutdown()
    return latencies, rates


def _new_cluster() -> Any:
    from ray.cluster_utils import Cluster

    # The head takes no actors.
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    return Cluster(initialize_head=True, head_node_args=head)


@asynccontextmanager
async def _engine(models_dir: Path, address: str | None, actors: int) -> AsyncIterator[Engine]:
    # Each node has room for one actor of each of the two models.
    cluster = ClusterSettings(address, cpus=0.5, min_actors=actors, max_actors=actors) if address else None
    settings = EngineSettings(
        (models_dir,),
        device="cpu",
        torch_threads=1,
        max_batch=_MAX_BATCH,
        queue_limit=_CALLERS,
        cluster=cluster,
        load_wait_s=_LOAD_WAIT_S,
    )
    engine = Engine(settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def _picture(engine: Engine, model: str) -> NDArray[np.uint8]:
    side = engine.resolve(model, "stable").input.height
    return np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)


async def _latency(here: Engine, actors: Engine, model: str, calls: int) -> Latency:
    picture = _picture(here, model)
    times: list[tuple[float, ...]] = []
    for _ in range(_WARM_UP_CALLS + calls):
        pair = []
        for engine in (here, actors):
            started = time.perf_counter()
            await _call(engine, model, picture)
            pair.append((time.perf_counter() - started) * 1000)
        times.append(tuple(pair))
    kept = times[_WARM_UP_CALLS:]
    return Latency(
        model,
        median(pair[0] for pair in kept),
        median(pair[1] for pair in kept),
        median(pair[1] - pair[0] for pair in kept),
    )


async def _rate(engine: Engine, model: str, seconds: float) -> float:
    picture = _picture(engine, model)
    answered = 0
    began = time.monotonic()
    from_s, until_s = began + seconds / 4, began + seconds

    async def caller() -> None:
        nonlocal answered
        while time.monotonic() < until_s:
            await _call(engine, model, picture)
            answered += from_s <= time.monotonic() < until_s

    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    return answered / (until_s - from_s)


async def _call(engine: Engine, model: str, picture: NDArray[np.uint8]) -> None:
    await engine.predict(engine.resolve(model, "stable"), picture, _EXPLAIN, tenant="benchmark", lane="unary")
