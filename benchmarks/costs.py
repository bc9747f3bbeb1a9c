"""What one call costs each part: processor time, commands to the store, bytes of objects."""

from __future__ import annotations

import http.client
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis

from benchmarks.batches import Batches
from benchmarks.job import Job
from benchmarks.processes import cpu_s
from benchmarks.service import Service

_PARTS = ("Envoy", "replica", "imaging worker", "Valkey")
_WARM_UP = 4
_JOB = 32
# What the courier and the janitor do meanwhile is little, and goes on after the last answer.
_SETTLED_S = 0.5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call or one item: milliseconds of a core by part, commands to the store, bytes of objects written."""

    way: str
    cpu_ms: dict[str, float]
    commands: float
    object_bytes: float


def measure_costs(service: Service, photo: bytes, model: str, calls: int) -> list[Cost]:
    """Returns the costs of an image by several ways, one call at a time."""
    job = Job(photo, "image/jpeg", model, cam=True)
    batches = Batches(service)
    rest = http.client.HTTPConnection("127.0.0.1", service.edge_port, timeout=60)

    def post(*, cam: bool, keyed: bool) -> None:
        options = f"model={model}&grad_cam.enabled={str(cam).lower()}"
        headers = {"Authorization": f"Bearer {service.token}", "Content-Type": job.media_type}
        if keyed:
            headers["Idempotency-Key"] = str(uuid.uuid4())
        rest.request("POST", f"/v1/infer?{options}", photo, headers)
        response = rest.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ValueError(f"{response.status} {answer!r}")

    ways: list[tuple[str, int, Callable[[], Any]]] = [
        ("raw upload, no heatmap", 1, lambda: post(cam=False, keyed=False)),
        ("raw upload, heatmap by link", 1, lambda: post(cam=True, keyed=False)),
        ("the same with an idempotency key", 1, lambda: post(cam=True, keyed=True)),
        (f"item of a job of {_JOB}, heatmap by link", _JOB, lambda: batches.finished_job(photo, model, _JOB)),
    ]
    try:
        return [_cost(service, name, images, call, -(-calls // images)) for name, images, call in ways]
    finally:
        rest.close()
        batches.close()


def _cost(service: Service, way: str, images: int, call: Callable[[], Any], calls: int) -> Cost:
    store = redis.Redis.from_url(service.redis_url())
    for _ in range(_WARM_UP if images == 1 else 1):
        call()
    before = _state(service, store)
    for _ in range(calls):
        call()
    time.sleep(_SETTLED_S)
    after = _state(service, store)
    store.close()
    count = calls * images
    return Cost(
        way,
        {part: 1000 * (after[0][part] - before[0][part]) / count for part in _PARTS},
        (after[1] - before[1]) / count,
        (after[2] - before[2]) / count,
    )


def _state(service: Service, store: redis.Redis) -> tuple[dict[str, float], int, int]:
    pids = service.pids()
    stats: Any = store.info("stats")
    written = sum(file.stat().st_size for file in service.objects_dir().rglob("*") if file.is_file())
    return {part: cpu_s(pids[part]) for part in _PARTS}, int(stats["total_commands_processed"]), written
