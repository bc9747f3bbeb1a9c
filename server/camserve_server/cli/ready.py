"""The file that says how a running server is reached."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from camserve_server.base.config import Settings


def ready_state(settings: Settings) -> dict[str, object]:
    """Returns what `--ready-file` receives; `pid` is this process, and the targets are those of the first replica."""
    return {
        "edge_url": settings.edge_url,
        "grpc_target": settings.grpc_target,
        "internal_target": settings.internal_target,
        "pid": os.getpid(),
        "data_dir": str(settings.data_dir),
        "replicas": [_replica(settings, number) for number in range(settings.replica_count)],
    }


def _replica(settings: Settings, number: int) -> dict[str, object]:
    ports = settings.replica_ports(number)
    return {
        "grpc_target": f"{settings.grpc_reach_host}:{ports['grpc_port']}",
        "internal_target": f"127.0.0.1:{ports['internal_port']}",
        "metrics_url": f"http://127.0.0.1:{ports['metrics_port']}/metrics",
    }


def write_state(path: Path, state: dict[str, object]) -> None:
    """Writes `state` as one JSON line, readable by this user only; readers see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(orjson.dumps(state) + b"\n")
    draft.replace(path)
