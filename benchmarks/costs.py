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
_COMMANDS, _BYTES = "commands", "bytes"
# What goes on after the last answer; and a while that shows what is used without any.
_SETTLED_S = 0.5
_IDLE_S = 5.0


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
    store = redis.Redis.from_url(service.redis_url())
    try:
        idle = _idle_commands(store)
        return [_cost(service, store, idle, name, images, call, -(-calls // images)) for name, images, call in ways]
    finally:
        store.close()
        rest.close()
        batches.close()


def _cost(
    service: Service,
    store: redis.Redis,
    idle: float,
    way: str,
    images: int,
    call: Callable[[], Any],
    calls: int,
) -> Cost:
    for _ in range(_WARM_UP if images == 1 else 1):
        call()
    before, started = _state(service, store), time.monotonic()
    for _ in range(calls):
        call()
    time.sleep(_SETTLED_S)
    after, took_s, count = _state(service, store), time.monotonic() - started, calls * images
    used = {name: (after[name] - before[name]) / count for name in after}
    commands = used[_COMMANDS] - idle * took_s / count
    return Cost(way, {part: 1000 * used[part] for part in _PARTS}, commands, used[_BYTES])


def _idle_commands(store: redis.Redis) -> float:
    """Returns how many commands a second the replica sends without any call."""
    before: Any = store.info("stats")
    time.sleep(_IDLE_S)
    after: Any = store.info("stats")
    return float(after["total_commands_processed"] - before["total_commands_processed"]) / _IDLE_S


def _state(service: Service, store: redis.Redis) -> dict[str, float]:
    pids = service.pids()
    stats: Any = store.info("stats")
    written = sum(file.stat().st_size for file in service.objects_dir().rglob("*") if file.is_file())
    used = {part: cpu_s(pids[part]) for part in _PARTS}
    return used | {_COMMANDS: stats["total_commands_processed"], _BYTES: written}
