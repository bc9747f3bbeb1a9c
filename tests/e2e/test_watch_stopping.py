"""Who watches a job over a server that stops."""

from __future__ import annotations

import asyncio
import json
import signal

import grpc
import httpx
from tests.images import star_png

from camserve.v1 import inference_pb2, jobs_pb2, jobs_pb2_grpc


async def test_a_stream_whose_server_stops_says_so_last(make_stack):
    # Nobody works on the job, so that it outlasts the server.
    stack = make_stack(roles="api", drain_s=2)
    metadata = (("authorization", f"Bearer {stack.token()}"),)
    inputs = [inference_pb2.BatchInput(id="a", image=inference_pb2.ImageInput(bytes=star_png()))]
    async with (
        grpc.aio.insecure_channel(stack.grpc_target) as channel,
        httpx.AsyncClient(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as rest,
    ):
        jobs = jobs_pb2_grpc.JobServiceStub(channel)
        made = await jobs.CreateJob(jobs_pb2.CreateJobRequest(model="shapes", inputs=inputs), metadata=metadata)
        native = jobs.WatchJob(jobs_pb2.WatchJobRequest(job_id=made.job_id), metadata=metadata)
        assert (await native.read()).job.status == jobs_pb2.Job.queued
        begun = asyncio.Event()

        async def watch_over_rest():
            events = []
            async with rest.stream("GET", f"/v1/jobs/{made.job_id}/events") as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: "):
                        events.append(json.loads(line.removeprefix("data: ")))
                        begun.set()
            return events

        watching = asyncio.create_task(watch_over_rest())
        await begun.wait()
        stack.process.send_signal(signal.SIGTERM)
        last = await native.read()
        assert (last.event, last.error.code) == (inference_pb2.StreamEvent.error, "service.draining")
        assert await native.read() is grpc.aio.EOF
        assert await native.code() is grpc.StatusCode.OK
        status, error = await watching
        assert (status["event"], error["event"], error["error"]["code"]) == ("status", "error", "service.draining")
    assert await asyncio.to_thread(stack.process.wait, 30) == 0
