"""Checks of a call that go on beside it: whatever else happens, their refusal is the call's."""

from __future__ import annotations

import asyncio
import hashlib
from unittest.mock import Mock

import grpc
import pytest
from tests.images import star_png

from camserve.v1 import inference_pb2, jobs_pb2, jobs_pb2_grpc, limits_pb2, limits_pb2_grpc
from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.call import Call, checks_itself
from camserve_server.rpc.jobs import JobServicer

SERVICE = jobs_pb2.DESCRIPTOR.services_by_name["JobService"]


@checks_itself
async def waits(call: Call, _: object) -> None:
    """Serves."""


async def does_not_wait(call: Call, _: object) -> None:
    """Serves."""


def begin(serve) -> Call:
    return Call.begin(
        SERVICE.methods_by_name["CreateJob"], Mock(http_code=202), None, Mock(invocation_metadata=tuple), serve
    )


class Check:
    """One that is over when it is told."""

    def __init__(self) -> None:
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self.ended = False

    async def run(self, error: Exception | None = None) -> None:
        self.begun.set()
        try:
            await self.over.wait()
            if error:
                raise error
        finally:
            self.ended = True


async def test_a_check_goes_on_beside_the_call_and_is_awaited_before_its_end():
    call, check, events = begin(waits), Check(), []

    async def run():
        async with call.passing(check.run(), likely=True):
            events.append("begun")
            await call.checked()
            events.append("checked")

    running = asyncio.create_task(run())
    await check.begun.wait()
    assert events == ["begun"]
    check.over.set()
    await running
    assert events == ["begun", "checked"]


@pytest.mark.parametrize(("serve", "likely"), [(does_not_wait, True), (waits, False)])
async def test_nothing_begins_before_a_check_where_it_may_not_go_on_beside(serve, likely):
    call, check, events = begin(serve), Check(), []

    async def run():
        async with call.passing(check.run(ApiError(Reason.RATE_EXCEEDED)), likely=likely):
            events.append("begun")

    running = asyncio.create_task(run())
    await check.begun.wait()
    check.over.set()
    with pytest.raises(ApiError) as refusal:
        await running
    assert (refusal.value.reason, events) == (Reason.RATE_EXCEEDED, [])


@pytest.mark.parametrize("own", [None, ApiError(Reason.BATCH_EMPTY)])
async def test_the_refusal_of_a_check_is_the_calls_whatever_the_call_itself_says(own):
    call, check = begin(waits), Check()

    async def run():
        async with call.passing(check.run(ApiError(Reason.RATE_EXCEEDED)), likely=True):
            check.over.set()
            if own:
                raise own

    with pytest.raises(ApiError) as refusal:
        await run()
    assert refusal.value.reason is Reason.RATE_EXCEEDED


async def test_a_check_does_not_outlive_a_call_that_is_canceled():
    call, check = begin(waits), Check()

    async def run():
        async with call.passing(check.run(), likely=True):
            await asyncio.sleep(60)

    running = asyncio.create_task(run())
    await check.begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert check.ended


def test_a_job_is_the_one_thing_whose_checks_go_on_beside_it():
    servicer = object.__new__(JobServicer)
    methods = [name for name in vars(JobServicer) if not name.startswith("_")]
    assert [name for name in methods if begin(getattr(servicer, name)).checks_beside] == ["create_job"]


def job(count: int) -> jobs_pb2.CreateJobRequest:
    image = inference_pb2.ImageInput(bytes=star_png())
    return jobs_pb2.CreateJobRequest(
        model="shapes", inputs=[inference_pb2.BatchInput(id=str(at), image=image) for at in range(count)]
    )


async def test_a_job_beyond_the_quota_leaves_nothing_and_one_beyond_the_rate_is_refused_as_such(stack, refusal):
    name = "checked-beside"
    metadata = (("authorization", f"Bearer {stack.token(tenant=name)}"),)
    assert stack.camserve("tenants", "set", name, "--images-per-day", "3", "--rps", "1", "--burst", "6").returncode == 0
    await asyncio.sleep(2)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        jobs = jobs_pb2_grpc.JobServiceStub(channel)
        limits = limits_pb2_grpc.LimitServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await jobs.CreateJob(job(4), metadata=metadata)
        assert refusal(refused.value).reason == "quota.exceeded"
        assert not (await jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata)).jobs
        hashed = hashlib.sha256(name.encode()).hexdigest()[:32]
        (folder,) = (stack.data_dir / "objects").glob(f"*/{hashed}")
        async with asyncio.timeout(5):
            while any(folder.iterdir()):
                await asyncio.sleep(0.05)
        used = await limits.GetLimits(limits_pb2.GetLimitsRequest(), metadata=metadata)
        assert (used.images_per_day.used, used.concurrency.in_use) == (0, 0)
        reasons = []
        for _ in range(8):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await jobs.CreateJob(job(0), metadata=metadata)
            reasons.append(refusal(refused.value).reason)
        assert reasons[0] != "rate.exceeded"
        assert reasons[-1] == "rate.exceeded"
