from __future__ import annotations

import asyncio

import grpc
import pytest
from google.protobuf import json_format, struct_pb2, timestamp_pb2
from tests.rpc.conftest import Client
from tests.rpc.test_jobs import create, entry, get, job, watched

from camserve.v1 import jobs_pb2 as pb


def with_metadata(document):
    message = job([entry("a", b"x")])
    message.metadata.update(document)
    return message


async def test_a_page_of_jobs_closes_before_a_client_would_refuse_it(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='large')}"),)
    document = {"a": [number % 10 for number in range(8_000)]}
    created = [
        (await client.jobs.CreateJob(with_metadata({"n": n} | document), metadata=metadata)).job_id for n in range(50)
    ]
    seen: list[str] = []
    cursor, pages = None, 0
    while pages == 0 or cursor:
        page = await client.jobs.ListJobs(pb.ListJobsRequest(limit=200, cursor=cursor), metadata=metadata)
        assert page.ByteSize() < 3.5 * 2**20
        for found in page.jobs:
            n = created.index(found.job_id)
            assert json_format.MessageToDict(found.metadata) == {"n": n} | document
        assert page.page.size == len(page.jobs)
        seen += [found.job_id for found in page.jobs]
        pages += 1
        cursor = page.page.next_cursor
    assert pages > 1
    assert seen == created[::-1]


async def test_who_lists_much_metadata_does_not_hold_up_others(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='lister')}"),)
    document = {"a": [1] * 8_000}
    for _ in range(30):
        await client.jobs.CreateJob(with_metadata(document), metadata=metadata)
    theirs = await client.jobs.CreateJob(with_metadata({"text": "x" * 4_000}), metadata=client.metadata)
    # Left as bytes: to read the pages takes as long as to write them.
    list_jobs = client.channel.unary_unary("/camserve.v1.JobService/ListJobs")
    request = pb.ListJobsRequest(limit=200).SerializeToString()
    lists = [asyncio.ensure_future(list_jobs(request, metadata=metadata)) for _ in range(60)]
    answered = 0
    # Their own connection: on one they would wait for 150 MB of pages to cross it.
    async with grpc.aio.insecure_channel(stack.grpc_target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        other = Client(channel, client.metadata)
        while not all(listed.done() for listed in lists):
            assert (await get(other, theirs.job_id)).metadata["text"] == "x" * 4_000
            answered += 1
    await asyncio.gather(*lists)
    # Behind the pages of all lists there would be a few.
    assert answered > 20


async def test_a_value_that_says_nothing_comes_back_as_null(client):
    metadata = struct_pb2.Struct()
    metadata.fields["open"].CopyFrom(struct_pb2.Value())
    metadata.fields["list"].list_value.values.add()
    receipt = await create(client, [entry("a", b"x")], metadata=metadata)
    said = (await get(client, receipt.job_id)).metadata
    assert said.fields["open"].WhichOneof("kind") == "null_value"
    assert said.fields["list"].list_value.values[0].WhichOneof("kind") == "null_value"


async def test_metadata_of_every_kind_come_back_as_they_were(client):
    document = {
        "numbers": [0, -0.5, 1e300, 2**53, -7],
        "text": "ä\u2028",
        "": {"deep": [[], {}, [None, True, False]]},
    }
    receipt = await client.jobs.CreateJob(with_metadata(document), metadata=client.metadata)
    assert json_format.MessageToDict((await get(client, receipt.job_id)).metadata) == document
    empty = await client.jobs.CreateJob(job([entry("a", b"x")], metadata=struct_pb2.Struct()), metadata=client.metadata)
    assert (await get(client, empty.job_id)).HasField("metadata")


def nested(depth, kind):
    """Metadata with so many objects and lists in each other, itself among them."""
    inner = {} if kind == "objects" else []
    for _ in range(depth - 2):
        inner = {"a": inner} if kind == "objects" else [inner]
    return {"a": inner}


@pytest.mark.parametrize("kind", ["objects", "lists"])
async def test_metadata_as_deep_as_they_may_be_are_listed_and_watched_and_deeper_ones_refused(
    client, stack, refusal, kind
):
    metadata = (("authorization", f"Bearer {stack.token(tenant=f'deep-{kind}')}"),)
    made = await client.jobs.CreateJob(with_metadata(nested(30, kind)), metadata=metadata)
    (listed,) = (await client.jobs.ListJobs(pb.ListJobsRequest(), metadata=metadata)).jobs
    events = [event async for event in client.jobs.WatchJob(pb.WatchJobRequest(job_id=made.job_id), metadata=metadata)]
    for seen in (listed, events[-1].job):
        assert json_format.MessageToDict(seen.metadata) == nested(30, kind)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.jobs.CreateJob(with_metadata(nested(31, kind)), metadata=metadata)
    seen = refusal(caught.value)
    assert (seen.reason, dict(seen.error.details)["field"]) == ("param.out_of_range", "metadata")


@pytest.mark.parametrize("field", ["created_after", "created_before"])
@pytest.mark.parametrize("time", [{"seconds": 2**62}, {"seconds": -(2**62)}, {"nanos": -1}, {"nanos": 10**9}])
async def test_a_time_that_no_timestamp_may_say_is_refused(client, refusal, field, time):
    request = pb.ListJobsRequest(**{field: timestamp_pb2.Timestamp(**time)})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.jobs.ListJobs(request, metadata=client.metadata)
    seen = refusal(caught.value)
    assert (seen.reason, dict(seen.error.details)["field"]) == ("param.invalid", field)


async def test_the_first_and_last_time_are_times(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='times')}"),)
    made = await client.jobs.CreateJob(job([entry("a", b"x")]), metadata=metadata)
    request = pb.ListJobsRequest(
        created_after=timestamp_pb2.Timestamp(seconds=-62_135_596_800),
        created_before=timestamp_pb2.Timestamp(seconds=253_402_300_799, nanos=999_999_999),
    )
    listed = await client.jobs.ListJobs(request, metadata=metadata)
    assert [found.job_id for found in listed.jobs] == [made.job_id]


async def test_a_failed_job_says_why_wherever_it_is_seen(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='failures')}"),)
    made = await client.jobs.CreateJob(job([entry("a", b"x"), entry("b", b"y")]), metadata=metadata)
    request = pb.WatchJobRequest(job_id=made.job_id)
    events = [event async for event in client.jobs.WatchJob(request, metadata=metadata)]
    again = [event async for event in client.jobs.WatchJob(request, metadata=metadata)]
    listed = await client.jobs.ListJobs(pb.ListJobsRequest(), metadata=metadata)
    seen = [events[-1].job, again[0].job, *listed.jobs]
    assert [found.error.code for found in seen] == 3 * ["image.invalid_format"]
    good = await create(client, [entry("a"), entry("b", b"y")])
    assert not any(event.job.HasField("error") for event in await watched(client, good.job_id))
