"""Parts of one stack that are killed or stand still under load: Envoy, the replica, an imaging worker."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import replica_of
from tests.faults.callers import BROKEN, INFER, JOB, KEYED, Callers

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    # A picture whose worker stands still is given up soon, and what is short is not the processor.
    stack = start_stack(tmp_path_factory.mktemp("stack"), imaging_deadline_s=2, queue_wait_s=20, replica_count=1)
    yield stack
    stop_stack(stack)


def child(pid: int, name: str) -> int:
    """Returns a process below another by a word of its command."""
    for process in psutil.Process(pid).children(recursive=True):
        command = " ".join(process.cmdline())
        if name in command and "guard.py" not in command:
            return process.pid
    raise AssertionError(f"no {name} runs")


async def test_an_edge_that_is_killed_under_load_comes_back_and_nobody_who_tries_again_notices(running):
    callers = Callers(running.edge_url, running.token())
    once = Callers(running.edge_url, running.token(), seed=2)
    async with callers.calling([KEYED] * 2 + [JOB] * 2, retry=True), once.calling([INFER] * 2):
        await callers.until(20)
        os.kill(child(running.process.pid, "envoy"), signal.SIGKILL)
        killed_at = time.monotonic()
        await callers.until(40, since=killed_at)
        back_at = time.monotonic()
        await once.until(20, since=back_at)
    assert set(callers.count()) == {"200", "202"}
    # Whoever tries once sees connections that break, and nothing else.
    assert set(once.count()) == {"200", BROKEN}
    assert set(once.count(since=back_at)) == {"200"}


async def test_an_imaging_worker_that_is_killed_under_load_costs_no_call(running):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([INFER] * 3 + [KEYED]):
        await callers.until(20)
        os.kill(child(replica_of(running), "imaging_worker"), signal.SIGKILL)
        await callers.until(40, since=time.monotonic())
    assert set(callers.count()) == {"200"}


async def test_an_imaging_worker_that_stands_still_costs_its_picture_and_is_replaced(running):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([INFER] * 3 + [KEYED]):
        await callers.until(20)
        stopped = child(replica_of(running), "imaging_worker")
        os.kill(stopped, signal.SIGSTOP)
        while psutil.pid_exists(stopped) and psutil.Process(stopped).status() != psutil.STATUS_ZOMBIE:
            await callers.until(len(callers.heard) + 1)
        await callers.until(40, since=time.monotonic())
    counted = callers.count()
    assert set(counted) == {"200", "image.rejected"}
    assert counted["image.rejected"] == 1


async def test_a_lone_replica_that_is_killed_under_load_comes_back_and_nobody_who_tries_again_notices(running):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([KEYED] * 3 + [JOB], retry=True):
        await callers.until(20)
        os.kill(replica_of(running), signal.SIGKILL)
        await callers.until(40, since=time.monotonic())
    assert set(callers.count()) == {"200", "202"}
