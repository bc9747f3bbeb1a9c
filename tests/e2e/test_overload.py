"""More calls at once than a stack of little room takes."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import grpc
import httpx
import pytest
from google.api import httpbody_pb2
from tests.conftest import Stack
from tests.engine.tiny import write_model
from tests.images import star_png

from camserve.v1 import inference_pb2, inference_pb2_grpc

pytestmark = [pytest.mark.timeout(180), pytest.mark.alone]
CALLS = 100


@pytest.fixture
def small(make_stack) -> Stack:
    return make_stack(max_batch=1, queue_limit=8, torch_threads=1, replica_count=1)


async def test_what_finds_no_room_is_told_when_to_come_again_and_the_rest_is_answered(small):
    headers = small.headers() | {"content-type": "image/png"}
    image = star_png()
    async with httpx.AsyncClient(base_url=small.edge_url, headers=headers, timeout=60, trust_env=False) as client:
        answers = await asyncio.gather(*(client.post("/v1/infer?model=shapes", content=image) for _ in range(CALLS)))
        heard = Counter(answer.status_code for answer in answers)
        assert set(heard) == {200, 503}
        for answer in answers:
            assert "x-ratelimit-remaining" in answer.headers
            assert "x-camserve-shed" not in answer.headers
            if answer.status_code == 503:
                assert answer.json()["error"]["code"] == "service.overloaded"
                assert answer.headers["retry-after"] == "1"
        # What comes when they are gone has room.
        await asyncio.sleep(1)
        assert (await client.post("/v1/infer?model=shapes", content=image)).status_code == 200


async def test_a_slow_model_takes_no_more_than_it_answers_soon_from_the_first_call_on(
    make_stack, tmp_path, monkeypatch
):
    write_model(tmp_path / "stack0" / "models", "slow", architecture='builder = "tests.engine.tiny:SlowNet"')
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    slow = make_stack(replica_count=1)
    headers = slow.headers() | {"content-type": "image/png"}
    async with httpx.AsyncClient(base_url=slow.edge_url, headers=headers, timeout=60, trust_env=False) as client:
        calls = (client.post("/v1/infer?model=slow", content=star_png()) for _ in range(CALLS))
        answers = await asyncio.gather(*calls)
    heard = Counter(answer.status_code for answer in answers)
    # Two batches and what the workers decode, and ten more for each second that the calls take to come.
    assert heard.keys() == {200, 503}
    assert 18 <= heard[200] <= 60


async def test_a_flood_of_one_model_refuses_no_call_for_another_one(make_stack, tmp_path, monkeypatch):
    write_model(tmp_path / "stack0" / "models", "slow", architecture='builder = "tests.engine.tiny:SlowNet"')
    write_model(tmp_path / "stack0" / "models", "tiny")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    running = make_stack(replica_count=1)
    headers = running.headers() | {"content-type": "image/png"}
    ended = asyncio.Event()
    refused = 0
    async with httpx.AsyncClient(base_url=running.edge_url, headers=headers, timeout=60, trust_env=False) as client:

        async def flood():
            nonlocal refused
            while not ended.is_set():
                refused += (await client.post("/v1/infer?model=slow", content=star_png())).status_code == 503

        assert (await client.post("/v1/infer?model=tiny", content=star_png())).status_code == 200
        callers = [asyncio.create_task(flood()) for _ in range(CALLS)]
        while not refused:
            await asyncio.sleep(0.05)
        heard = []
        for _ in range(6):
            await asyncio.sleep(0.5)
            heard.append((await client.post("/v1/infer?model=tiny", content=star_png())).status_code)
        ended.set()
        await asyncio.gather(*callers)
    assert heard == [200] * 6
    assert refused > 6


@pytest.mark.parametrize("rest", [False, True])
async def test_a_refusal_tells_the_edge_to_hold_off_the_tenant(small, rest):
    image = star_png()
    message = inference_pb2.InferUploadRequest(
        model="shapes", size_bytes=len(image), body=httpbody_pb2.HttpBody(content_type="image/png", data=image)
    )
    metadata = [("authorization", small.headers()["Authorization"])]
    if rest:
        metadata.append(("x-envoy-original-path", "/v1/infer"))
    async with grpc.aio.insecure_channel(small.grpc_target) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)

        async def call():
            try:
                await stub.InferUpload(iter([message]), metadata=metadata, timeout=60)
                return None
            except grpc.aio.AioRpcError as error:
                return error

        refused = [error for error in await asyncio.gather(*(call() for _ in range(CALLS))) if error]
    assert refused
    for error in refused:
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(error.trailing_metadata())
        assert trailers["retry-after"] == "1"
        assert ("x-camserve-shed" in trailers) == rest
