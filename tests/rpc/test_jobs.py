from __future__ import annotations

import asyncio
import base64
import math
import re
import string

import grpc
import pytest
from google.protobuf import json_format, struct_pb2
from tests.images import encoded, star_png

from camserve.v1 import inference_pb2
from camserve.v1 import jobs_pb2 as pb

KIND = inference_pb2.StreamEvent


def entry(name, data=None, **options):
    image = inference_pb2.ImageInput(bytes=star_png() if data is None else data)
    return inference_pb2.BatchInput(id=name, image=image, **options)


def job(inputs, **changes):
    return pb.CreateJobRequest(**({"model": "shapes", "inputs": inputs} | changes))


async def create(client, inputs, **changes):
    return await client.jobs.CreateJob(job(inputs, **changes), metadata=client.metadata)


async def watched(client, job_id):
    request = pb.WatchJobRequest(job_id=job_id)
    return [event async for event in client.jobs.WatchJob(request, metadata=client.metadata)]


async def get(client, job_id):
    return await client.jobs.GetJob(pb.GetJobRequest(job_id=job_id), metadata=client.metadata)


async def results(client, job_id, **page):
    request = pb.ListJobResultsRequest(job_id=job_id, **page)
    return await client.jobs.ListJobResults(request, metadata=client.metadata)


async def test_a_job_is_accepted_at_once_and_its_items_are_classified_in_the_order_of_the_request(client):
    receipt = await create(client, [entry(f"i{n}") for n in range(20)])
    assert re.fullmatch(r"job_[0-9A-Za-z]{22}", receipt.job_id)
    assert (receipt.status, receipt.counts.submitted) == (pb.Job.queued, 20)
    assert receipt.estimated_wait_ms > 0
    await watched(client, receipt.job_id)
    listed = await results(client, receipt.job_id)
    assert [item.id for item in listed.items] == [f"i{n}" for n in range(20)]
    assert all(item.result.classes[0].id == "star" for item in listed.items)
    answer = listed.items[0].result
    assert (answer.model_version, answer.labels_version, answer.calibration_version) == ("2", "1", "1")
    done = await get(client, receipt.job_id)
    assert done.status == pb.Job.succeeded
    assert (done.result_summary.items, done.result_summary.succeeded, done.result_summary.failed) == (20, 20, 0)
    assert done.submitted_at.ToMilliseconds() <= done.started_at.ToMilliseconds() <= done.completed_at.ToMilliseconds()
    assert done.expires_at.seconds - done.submitted_at.seconds == 72 * 3600
    assert not done.HasField("result")


async def test_a_watcher_sees_every_item_once_and_done_last(client):
    receipt = await create(client, [entry(f"i{n}") for n in range(10)] + [entry("bad", b"nothing")])
    events = await watched(client, receipt.job_id)
    assert events[0].event == KIND.status
    items = [event.item for event in events if event.event == KIND.item]
    assert sorted(item.id for item in items) == sorted([*(f"i{n}" for n in range(10)), "bad"])
    assert [item.error.code for item in items if item.id == "bad"] == ["image.invalid_format"]
    assert events[-1].event == KIND.done
    assert (events[-1].job.status, events[-1].summary.succeeded, events[-1].summary.failed) == (
        pb.Job.succeeded,
        10,
        1,
    )
    again = await watched(client, receipt.job_id)
    assert [event.event for event in again] == [KIND.status, *[KIND.item] * 11, KIND.done]


async def test_a_job_of_one_image_carries_its_result_and_a_job_without_a_good_one_fails_with_its_error(client):
    good = await create(client, [entry("only", grad_cam=inference_pb2.GradCAMOptions(enabled=True))])
    bad = await create(client, [entry("a", b"nothing"), entry("b", b"nothing either")])
    await watched(client, good.job_id)
    await watched(client, bad.job_id)
    done = await get(client, good.job_id)
    assert done.result.classes[0].id == "star"
    assert done.result.heatmap.url.startswith("http")
    failed = await get(client, bad.job_id)
    assert (failed.status, failed.error.code) == (pb.Job.failed, "image.invalid_format")


async def test_a_heatmap_is_inline_in_every_reading_when_asked_for(client):
    receipt = await create(
        client,
        [entry("a", grad_cam=inference_pb2.GradCAMOptions(enabled=True))],
        response=inference_pb2.ResponseOptions(heatmap="inline"),
    )
    await watched(client, receipt.job_id)
    heatmap = (await results(client, receipt.job_id)).items[0].result.heatmap
    assert heatmap.type == "png"
    assert heatmap.data_b64.startswith(b"\x89PNG")
    assert not heatmap.HasField("url")


async def test_every_item_has_its_own_options(client):
    receipt = await create(
        client,
        [
            entry("one", classify=inference_pb2.ClassificationOptions(top_k=1)),
            entry("map", grad_cam=inference_pb2.GradCAMOptions(enabled=True, target="heart", format="npy")),
        ],
    )
    await watched(client, receipt.job_id)
    one, drawn = (await results(client, receipt.job_id)).items
    assert len(one.result.classes) == 1
    assert (drawn.result.heatmap.target, drawn.result.heatmap.format) == ("heart", "npy")


async def test_metadata_comes_back_as_it_was(client):
    message = job([entry("a")])
    json_format.ParseDict({"order": 7, "tags": ["x", None]}, message.metadata)
    receipt = await client.jobs.CreateJob(message, metadata=client.metadata)
    assert json_format.MessageToDict((await get(client, receipt.job_id)).metadata) == {"order": 7, "tags": ["x", None]}
    plain = await create(client, [entry("a")])
    assert not (await get(client, plain.job_id)).HasField("metadata")


async def test_the_largest_metadata_go_with_a_full_batch(client):
    digits = {"a": [number % 10 for number in range(8_000)]}
    inputs = [entry(f"i{n}", b"x", classify=inference_pb2.ClassificationOptions(top_k=1)) for n in range(256)]
    message = job(inputs)
    message.metadata.update(digits)
    receipt = await client.jobs.CreateJob(message, metadata=client.metadata)
    assert receipt.counts.submitted == 256
    listed = await client.jobs.ListJobs(pb.ListJobsRequest(), metadata=client.metadata)
    (made,) = [found for found in listed.jobs if found.job_id == receipt.job_id]
    assert json_format.MessageToDict(made.metadata) == digits


@pytest.mark.parametrize(
    ("inputs", "changes", "reason"),
    [
        ([], {}, "batch.empty"),
        ([entry(f"i{n}", b"x") for n in range(257)], {}, "batch.too_large"),
        ([entry("a"), entry("a")], {}, "batch.duplicate_id"),
        ([entry("a"), entry("b", b"")], {}, "image.source_required"),
        ([entry("a")], {"model": "nobody"}, "model.not_found"),
        ([entry("a")], {"model_version": "77"}, "model.version_not_found"),
        ([entry("a")], {"job_type": "training"}, "param.invalid"),
        ([entry("a")], {"ttl_hours": 721}, "param.out_of_range"),
        ([entry("a", grad_cam=inference_pb2.GradCAMOptions(enabled=True, layer="no"))], {}, "param.layer_not_found"),
    ],
)
async def test_a_job_that_cannot_be_done_is_refused_whole(client, refusal, inputs, changes, reason):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(client, inputs, **changes)
    assert refusal(caught.value).error.code == reason


async def test_too_much_metadata_is_refused(client, refusal):
    message = job([entry("a")])
    json_format.ParseDict({"long": "x" * 16_400}, message.metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.jobs.CreateJob(message, metadata=client.metadata)
    assert refusal(caught.value).error.code == "param.out_of_range"


async def test_canceling_ends_a_job_once_and_a_finished_one_stays(client, refusal):
    receipt = await create(client, [entry(f"i{n}") for n in range(256)])
    canceled = await client.jobs.CancelJob(pb.CancelJobRequest(job_id=receipt.job_id), metadata=client.metadata)
    assert canceled.status == pb.Job.canceled
    again = await client.jobs.CancelJob(pb.CancelJobRequest(job_id=receipt.job_id), metadata=client.metadata)
    assert again.completed_at == canceled.completed_at
    assert (await watched(client, receipt.job_id))[-1].job.status == pb.Job.canceled
    statuses = {item.status for item in (await results(client, receipt.job_id, limit=200)).items}
    assert pb.Job.canceled in statuses
    assert statuses <= {pb.Job.canceled, pb.Job.succeeded}
    finished = await create(client, [entry("a")])
    await watched(client, finished.job_id)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.jobs.CancelJob(pb.CancelJobRequest(job_id=finished.job_id), metadata=client.metadata)
    seen = refusal(caught.value)
    assert (seen.error.code, seen.error.status) == ("job.already_completed", 409)


async def test_pages_of_jobs_stay_exact_while_jobs_arrive(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='pages')}"),)

    async def submit():
        return (await client.jobs.CreateJob(job([entry("a", b"x")]), metadata=metadata)).job_id

    created = [await submit() for _ in range(7)]
    seen: list[str] = []
    cursor = None
    while True:
        request = pb.ListJobsRequest(limit=3, cursor=cursor)
        page = await client.jobs.ListJobs(request, metadata=metadata)
        seen += [found.job_id for found in page.jobs]
        assert page.page.size == len(page.jobs)
        if not page.page.HasField("next_cursor"):
            break
        cursor = page.page.next_cursor
        await submit()
    assert seen == created[::-1]


async def test_jobs_are_filtered_by_state_model_and_time(client, stack):
    metadata = (("authorization", f"Bearer {stack.token(tenant='filters')}"),)
    good = await client.jobs.CreateJob(job([entry("a")]), metadata=metadata)
    bad = await client.jobs.CreateJob(job([entry("a", b"x")]), metadata=metadata)
    for receipt in (good, bad):
        async for _ in client.jobs.WatchJob(pb.WatchJobRequest(job_id=receipt.job_id), metadata=metadata):
            pass

    async def listed(**filters):
        page = await client.jobs.ListJobs(pb.ListJobsRequest(**filters), metadata=metadata)
        return [found.job_id for found in page.jobs]

    assert await listed() == [bad.job_id, good.job_id]
    assert await listed(status="succeeded") == [good.job_id]
    assert await listed(status="queued") == []
    assert await listed(model="shapes", status="failed") == [bad.job_id]
    assert await listed(model="resnet50") == []
    times = {
        found.job_id: found.submitted_at
        for found in (await client.jobs.ListJobs(pb.ListJobsRequest(), metadata=metadata)).jobs
    }
    assert await listed(created_after=times[bad.job_id]) == [bad.job_id]
    assert await listed(created_before=times[bad.job_id]) == [good.job_id]


async def test_cursors_serve_one_listing_of_one_tenant(client, stack, refusal):
    receipt = await create(client, [entry(f"i{n}", b"x") for n in range(3)])
    cursor = (await results(client, receipt.job_id, limit=1)).page.next_cursor
    assert [item.id for item in (await results(client, receipt.job_id, cursor=cursor, limit=9)).items] == ["i1", "i2"]
    other = await create(client, [entry("a", b"x")])
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[-1] ^= 1
    altered = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    # Some of their bits may say nothing.
    last = [cursor[:-1] + other for other in string.ascii_letters + string.digits + "-_" if other != cursor[-1]]
    for job_id, wrong in (
        *((receipt.job_id, one) for one in last),
        (receipt.job_id, cursor + "="),
        (other.job_id, cursor),
        (receipt.job_id, altered),
        (receipt.job_id, "n" * 513),
        (receipt.job_id, "nonsense"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await results(client, job_id, cursor=wrong)
        assert refusal(caught.value).error.code == "cursor.invalid"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
async def test_metadata_with_a_number_that_json_does_not_know_is_refused(client, refusal, number):
    metadata = struct_pb2.Struct()
    metadata["list"] = [number]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create(client, [entry("a")], metadata=metadata)
    seen = refusal(caught.value)
    assert (seen.reason, dict(seen.error.details)["field"]) == ("param.invalid", "metadata")


async def test_a_url_of_any_length_is_judged_as_one(client, refusal):
    url = "https://example.com/" + "a" * 2029
    for inputs, changes, code in (
        ([entry("a")], {"callback_url": ""}, "webhook.url_not_allowed"),
        ([entry("a")], {"callback_url": url}, "webhook.url_not_allowed"),
        ([inference_pb2.BatchInput(id="a", image=inference_pb2.ImageInput(url=url))], {}, "image.url_not_allowed"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create(client, inputs, **changes)
        assert refusal(caught.value).reason == code


async def test_another_tenants_job_is_like_an_unknown_one(client, stack, refusal):
    receipt = await create(client, [entry("a", b"x")])
    strangers = (("authorization", f"Bearer {stack.token(tenant='strangers')}"),)
    seen = []
    for job_id, metadata in (
        (receipt.job_id, strangers),
        ("job_" + "0" * 22, strangers),
        ("no job", client.metadata),
        ("job_" + "x" * 10_000, client.metadata),
    ):
        for call in (
            client.jobs.GetJob(pb.GetJobRequest(job_id=job_id), metadata=metadata),
            client.jobs.ListJobResults(pb.ListJobResultsRequest(job_id=job_id), metadata=metadata),
            client.jobs.CancelJob(pb.CancelJobRequest(job_id=job_id), metadata=metadata),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            seen.append((refusal(caught.value).error.code, caught.value.details()))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in client.jobs.WatchJob(pb.WatchJobRequest(job_id=job_id), metadata=metadata):
                pass
        seen.append((refusal(caught.value).error.code, caught.value.details()))
    assert set(seen) == {("job.not_found", "There is no such job.")}


async def test_interactive_calls_are_answered_while_a_job_runs(client):
    receipt = await create(client, [entry(f"i{n}", encoded(800, 600)) for n in range(64)])
    request = inference_pb2.InferRequest(model="shapes", image=inference_pb2.ImageInput(bytes=star_png()))
    answers = await asyncio.gather(*(client.inference.Infer(request, metadata=client.metadata) for _ in range(4)))
    assert all(answer.classes[0].id == "star" for answer in answers)
    assert (await get(client, receipt.job_id)).status in (pb.Job.queued, pb.Job.running)
    await watched(client, receipt.job_id)
