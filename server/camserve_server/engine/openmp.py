"""How the threads that share one operation of a model wait for each other."""

from __future__ import annotations

import os

_POLICIES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def wait_asleep() -> None:
    """Lets threads sleep as they wait for the others of an operation; else they spin, on the core that those need.

    A replica shares its cores with decoders, the edge and callers, so that one of the threads is always late. What the
    environment says of it stays. Call it before torch is imported: its OpenMP looks once.
    """
    if not any(name in os.environ for name in _POLICIES):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
