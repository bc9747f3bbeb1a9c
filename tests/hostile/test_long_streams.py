"""What one caller may ask for within the rules: hundreds of watchers, a message for each byte, maps past pictures."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator

import grpc
import httpx
import numpy as np
import pytest
from google.api import httpbody_pb2
from google.protobuf import struct_pb2
from tests.conftest import Stack
from tests.hostile.conftest import Beside, Memory, Target, target_of
from tests.images import encoded, star_png

from camserve.v1 import inference_pb2, inference_pb2_grpc, jobs_pb2, jobs_pb2_grpc, uploads_pb2, uploads_pb2_grpc

pytestmark = pytest.mark.timeout(180)
WATCHERS, ITEMS = 200, 64
UPLOADS = 8
MAP_SIDE, MAPS = 2048, 16
# A third of what the maps have together.
MOST_GROWTH_MB = 90


@pytest.fixture
async def channels(target: Target) -> AsyncIterator[list[grpc.aio.Channel]]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    opened = [grpc.aio.insecure_channel(f"127.0.0.1:{target.port}", options=options) for _ in range(UPLOADS)]
    yield opened
    for channel in opened:
        await channel.close()


async def test_hundreds_watch_a_job_and_see_all_of_it(
    target: Target, channels: list[grpc.aio.Channel], beside: Beside[list[list[str]]]
) -> None:
    metadata = (("authorization", f"Bearer {target.token}"),)
    picture = encoded(600, 400, "JPEG", quality=60)
    inputs = [inference_pb2.BatchInput(id=f"i{n}", image={"bytes": picture}) for n in range(ITEMS)]
    request = jobs_pb2.CreateJobRequest(model="shapes", inputs=inputs)
    job = await jobs_pb2_grpc.JobServiceStub(channels[0]).CreateJob(request, metadata=metadata)

    async def watch(channel: grpc.aio.Channel) -> list[str]:
        asked = jobs_pb2.WatchJobRequest(job_id=job.job_id)
        seen = jobs_pb2_grpc.JobServiceStub(channel).WatchJob(asked, metadata=metadata)
        return [inference_pb2.StreamEvent.Kind.Name(event.event) async for event in seen]

    told = await beside(asyncio.gather(*(watch(channels[number % UPLOADS]) for number in range(WATCHERS))))
    assert {events[-1] for events in told} == {"done"}
    assert {events.count("item") for events in told} == {ITEMS}


async def test_an_upload_may_have_a_message_for_each_byte(
    target: Target, channels: list[grpc.aio.Channel], beside: Beside[list], memory: Memory
) -> None:
    metadata = (("authorization", f"Bearer {target.token}"),)
    image = star_png()

    async def messages() -> AsyncIterator[uploads_pb2.UploadImageRequest]:
        yield uploads_pb2.UploadImageRequest(size_bytes=len(image))
        for byte in image:
            yield uploads_pb2.UploadImageRequest(body=httpbody_pb2.HttpBody(data=bytes([byte])))

    calls = (uploads_pb2_grpc.UploadServiceStub(each).UploadImage(messages(), metadata=metadata) for each in channels)
    made = await beside(asyncio.gather(*calls))
    assert {each.size_bytes for each in made} == {len(image)}
    assert memory.grown_mb < MOST_GROWTH_MB


async def test_maps_that_are_larger_than_their_pictures_are_not_kept_in_memory(
    hostile_stack: Stack, beside: Beside[list], memory: Memory
) -> None:
    target = target_of(hostile_stack, "direct")
    resolution = struct_pb2.Value()
    resolution.struct_value.update({"width": MAP_SIDE, "height": MAP_SIDE})
    wanted = inference_pb2.GradCAMOptions(enabled=True, format="npy", resolution=resolution)
    inputs = [inference_pb2.BatchInput(id=f"i{n}", image={"bytes": star_png()}, grad_cam=wanted) for n in range(MAPS)]
    request = inference_pb2.InferBatchRequest(model="shapes", inputs=inputs)

    async def batch() -> list[inference_pb2.BatchEvent]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{target.port}") as channel:
            metadata = (("authorization", f"Bearer {target.token}"),)
            answers = inference_pb2_grpc.InferenceServiceStub(channel).InferBatch(request, metadata=metadata)
            return [event async for event in answers if event.event == inference_pb2.StreamEvent.item]

    items = await beside(batch())
    assert len(items) == MAPS
    assert memory.grown_mb < MOST_GROWTH_MB
    async with httpx.AsyncClient(trust_env=False) as client:
        file = (await client.get(items[0].item.result.heatmap.url)).content
    assert np.load(io.BytesIO(file)).shape == (MAP_SIDE, MAP_SIDE)
