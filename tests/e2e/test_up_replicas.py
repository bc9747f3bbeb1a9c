"""Several replicas that one command runs behind one edge."""

from __future__ import annotations

import os
import re
import signal
import time

import grpc
import httpx
import psutil
import pytest
from benchmarks.processes import by_role
from tests.conftest import Stack, start_stack, stop_stack
from tests.faults.callers import INFER, JOB, KEYED, Callers
from tests.processes import wait_gone

from camserve.v1.models_pb2 import ListModelsRequest
from camserve.v1.models_pb2_grpc import ModelServiceStub
from camserve_server.cli.envoy import ask_admin

pytestmark = pytest.mark.timeout(400)
COUNT = 3


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    # Room for a machine that is busy with starting a replica: what is short must not be the processor.
    stack = start_stack(tmp_path_factory.mktemp("replicas"), replica_count=COUNT, queue_wait_s=20)
    yield stack
    stop_stack(stack)


def pids(stack: Stack) -> set[int]:
    return set(by_role(stack.process.pid)["replica"])


def calls(stack: Stack) -> list[float]:
    """How many calls each replica has answered."""
    texts = [httpx.get(url).text for url in stack.metrics_urls]
    return [sum(map(float, re.findall(r'camserve_calls_total\{[^}]*ListModels"[^}]*} (.+)', text))) for text in texts]


def test_each_replica_is_named_and_answers(running):
    named = running.ready["replicas"]
    assert len(named) == COUNT
    assert (named[0]["grpc_target"], named[0]["internal_target"]) == (running.grpc_target, running.internal_target)
    metadata = (("authorization", running.headers()["Authorization"]),)
    for replica in named:
        with grpc.insecure_channel(replica["grpc_target"]) as channel:
            assert ModelServiceStub(channel).ListModels(ListModelsRequest(), metadata=metadata).models


def test_the_edge_sends_calls_to_each_replica(running):
    before = calls(running)
    with httpx.Client(base_url=running.edge_url, headers=running.headers()) as api:
        # Until the edge has seen that a replica which another test ended is back.
        while not all(now > then for now, then in zip(calls(running), before, strict=True)):
            assert api.get("/v1/models").status_code == 200


def test_replicas_share_the_threads_and_imaging_workers_of_one(running):
    for pid in pids(running):
        environment = psutil.Process(pid).environ()
        assert environment["CAMSERVE_TORCH_THREADS"] == str(max(1, len(os.sched_getaffinity(0)) // COUNT))
        assert environment["CAMSERVE_IMAGING_WORKERS"] == "1"
        assert environment["CAMSERVE_LAME_DUCK_S"] == "2.5"


async def healthy(stack: Stack) -> int:
    """How many replicas the edge sends calls to."""
    told = await ask_admin(stack.data_dir / "run" / "admin.sock", "GET", "/stats?filter=^cluster.replicas.membership_h")
    return int(told.rpartition(":")[2])


async def back(stack: Stack, callers: Callers, ended: int) -> None:
    """Returns once another replica answers for one that was told to end, and the edge has seen that."""
    while ended in pids(stack) or len(pids(stack)) < COUNT:
        await callers.until(1, since=time.monotonic())
    # The edge may not have seen yet that one was killed.
    for replica in stack.ready["replicas"]:
        async with grpc.aio.insecure_channel(replica["grpc_target"]) as channel:
            await channel.channel_ready()
    while await healthy(stack) < COUNT:
        await callers.until(1, since=time.monotonic())


async def test_a_killed_replica_comes_back_and_no_call_of_a_client_that_tries_again_fails(running):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([KEYED] * 2 + [JOB], retry=True):
        await callers.until(20)
        victim = min(pids(running))
        os.kill(victim, signal.SIGKILL)
        await back(running, callers, victim)
    assert set(callers.count()) <= {"200", "202"}
    assert await callers.lost_jobs(60) == []


async def test_each_replica_is_told_to_end_and_comes_back_and_no_call_fails(running):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([INFER, KEYED, JOB]):
        await callers.until(20)
        for pid in pids(running):
            os.kill(pid, signal.SIGTERM)
            await back(running, callers, pid)
    assert set(callers.count()) == {"200", "202"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_end_of_the_command_is_that_of_every_replica(make_stack, number):
    running = make_stack(replica_count=2, lame_duck_s=0)
    below = [process.pid for process in psutil.Process(running.process.pid).children(recursive=True)]
    assert len(pids(running)) == 2
    running.process.send_signal(number)
    running.process.communicate(timeout=60)
    assert running.process.returncode == (0 if number == signal.SIGINT else -number)
    for pid in below:
        wait_gone(pid, within_s=40)
