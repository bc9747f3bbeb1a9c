"""What the engine needs to know of a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Where the cluster is and what each version takes of it.

    `address`: `auto` or `host:port` of a cluster that this machine belongs to, None for one that is started here.
    `cpus` and `gpus` are what one actor takes, fractions too; each version has `min_actors` to `max_actors`.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    min_actors: int = 1
    max_actors: int = 1
