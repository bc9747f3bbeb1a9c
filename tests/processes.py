"""Waiting for the end of processes that are not our children."""

from __future__ import annotations

import os
import select
import sys

import psutil


def wait_gone(pid: int, within_s: float = 20.0) -> None:
    """Fails unless the process ends within the time; one that waits to be reaped has ended."""
    try:
        if sys.platform != "linux":
            psutil.Process(pid).wait(within_s)
            return
        descriptor = os.pidfd_open(pid)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return
    ended, _, _ = select.select([descriptor], [], [], within_s)
    os.close(descriptor)
    assert ended, f"process {pid} still runs"
