"""Two replicas behind one edge: one dies, each is restarted, and callers do not notice."""

from __future__ import annotations

import asyncio
import json
import signal
import time

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from tests.e2e.test_jobs import entry, picture
from tests.faults.callers import INFER, JOB, KEYED, Callers
from tests.faults.pair import Pair, pair

from camserve.v1.models_pb2 import ListModelsRequest
from camserve.v1.models_pb2_grpc import ModelServiceStub

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    # Room for a machine that is busy with starting a replica: what is short must not be the processor.
    with pair(tmp_path_factory.mktemp("pair"), queue_wait_s=20, lame_duck_s=4) as both:
        yield both


async def test_a_replica_that_is_killed_under_load_fails_no_call_of_a_client_that_tries_again(running: Pair):
    callers = Callers(running.edge_url, running.token())
    async with callers.calling([KEYED] * 6 + [JOB] * 2, retry=True):
        await callers.until(40)
        await asyncio.to_thread(running.replicas[0].end, signal.SIGKILL)
        killed_at = time.monotonic()
        await callers.until(40, since=killed_at)
        # Nobody waited for the health check: the first connection that was refused told.
        assert time.monotonic() - killed_at < 10
        await running.start_again(running.replicas[0])
        await callers.until(40, since=time.monotonic())
    assert set(callers.count()) <= {"200", "202"}


async def test_each_replica_is_restarted_under_load_and_no_call_fails(running: Pair):
    callers = Callers(running.edge_url, running.token())
    headers = {"authorization": f"Bearer {running.token()}", "accept": "text/event-stream"}
    inputs = [entry(f"i{n}", picture()) for n in range(64)]
    async with httpx.AsyncClient(base_url=running.edge_url, headers=headers, timeout=120) as client:
        made = await client.post("/v1/jobs", json={"model": "shapes", "inputs": inputs})
        watching = f"/v1/jobs/{made.json()['job_id']}/events"
        batch = {"json": {"model": "shapes", "inputs": inputs}}
        async with callers.calling([INFER] * 4 + [KEYED] * 2 + [JOB] * 2):
            await callers.until(40)
            for replica in running.replicas:
                # Enough of them that some are on the replica that leaves.
                begun = [asyncio.Event() for _ in range(6)]
                streams = [
                    asyncio.create_task(events(client, began, "GET", watching))
                    if n % 2
                    else asyncio.create_task(events(client, began, "POST", "/v1/infer:batch", **batch))
                    for n, began in enumerate(begun)
                ]
                await asyncio.gather(*(began.wait() for began in begun))
                assert await asyncio.to_thread(replica.end) == 0
                for told in await asyncio.gather(*streams):
                    assert told[-1]["event"] == "done"
                    assert sum(event["event"] in ("item", "result") for event in told) == len(inputs)
                await running.start_again(replica)
                await callers.until(40, since=time.monotonic())
    assert set(callers.count()) == {"200", "202"}


async def test_a_replica_that_leaves_says_so_first_and_takes_calls_until_that_is_known(running: Pair):
    leaving = running.replicas[0]
    metadata = (("authorization", f"Bearer {running.token()}"),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{leaving.environment['CAMSERVE_GRPC_PORT']}") as channel:
        ready = HealthStub(channel).Watch(HealthCheckRequest(service="ready"))
        assert (await ready.read()).status == HealthCheckResponse.SERVING
        leaving.send(signal.SIGTERM)
        assert (await ready.read()).status == HealthCheckResponse.NOT_SERVING
        models = ModelServiceStub(channel)
        listed = await models.ListModels(ListModelsRequest(), metadata=metadata, timeout=20)
        assert listed.models
        # gRPC itself cancels what arrives at the very moment in which the server closes.
        with pytest.raises(grpc.aio.AioRpcError, match=r"UNAVAILABLE|CANCELLED"):
            await forever(lambda: models.ListModels(ListModelsRequest(), metadata=metadata, timeout=20))
        ready.cancel()
    assert await asyncio.to_thread(leaving.end) == 0
    await running.start_again(leaving)


async def forever(ask):
    while True:
        await ask()


async def events(client: httpx.AsyncClient, began: asyncio.Event, verb: str, path: str, **content):
    """Returns the events of a stream to its end."""
    told = []
    async with client.stream(verb, path, **content) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
                began.set()
    return told
