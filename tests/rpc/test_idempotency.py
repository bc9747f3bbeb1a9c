from __future__ import annotations

import asyncio
import base64
import hashlib
from uuid import uuid4

import grpc
import pytest
from google.api import httpbody_pb2
from tests.images import encoded, star_png

from camserve.v1 import inference_pb2 as pb
from camserve.v1 import jobs_pb2


def infer(client, key, *, image=None, tenant_metadata=None, **changes):
    request = pb.InferRequest(
        **{"model": "shapes", "image": image or pb.ImageInput(bytes=star_png())} | changes  # type: ignore[arg-type]
    )
    return client.inference.Infer(request, metadata=keyed(tenant_metadata or client.metadata, key))


def keyed(metadata, key):
    return (*metadata, ("idempotency-key", key))


async def replayed(call):
    return dict(await call.initial_metadata()).get("idempotency-replayed")


async def refused(refusal, call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return refusal(caught.value)


@pytest.fixture
def key():
    return f"key-{uuid4()}"


async def test_the_first_answer_comes_again_with_new_links(client, key):
    heatmap = pb.GradCAMOptions(enabled=True)
    first_call = infer(client, key, grad_cam=heatmap)
    first = await first_call
    second_call = infer(client, key, grad_cam=heatmap)
    second = await second_call
    assert (await replayed(first_call), await replayed(second_call)) == ("false", "true")
    assert dict(await second_call.initial_metadata())["request-id"] != first.request_id
    assert second.heatmap.url.partition("?")[0] == first.heatmap.url.partition("?")[0]
    for answer in (first, second):
        answer.heatmap.ClearField("url")
        answer.heatmap.ClearField("expires_at")
    assert second == first


async def test_without_a_key_every_call_runs(client):
    calls = [client.inference.Infer(request, metadata=client.metadata) for request in 2 * [star_request()]]
    first, second = [await call for call in calls]
    assert first.request_id != second.request_id
    assert [await replayed(call) for call in calls] == ["false", "false"]


def star_request():
    return pb.InferRequest(model="shapes", image=pb.ImageInput(bytes=star_png()))


async def test_an_upload_is_the_same_operation_as_a_message(client, refusal, key):
    first = await infer(client, key, classify=pb.ClassificationOptions(top_k=2))

    def upload(**changes):
        return pb.InferUploadRequest(
            model="shapes",
            size_bytes=len(star_png()),
            body=httpbody_pb2.HttpBody(content_type="image/png", data=star_png()),
            **changes,
        )

    call = client.inference.InferUpload(
        iter([upload(classify=pb.ClassificationOptions(top_k=2))]), metadata=keyed(client.metadata, key)
    )
    assert await call == first
    assert await replayed(call) == "true"
    other = client.inference.InferUpload(iter([upload()]), metadata=keyed(client.metadata, key))
    assert (await refused(refusal, other)).reason == "idempotency.key_reused"


@pytest.mark.parametrize(
    "changes",
    [
        {"model_version": "1"},
        {"classify": pb.ClassificationOptions(top_k=3)},
        {"image": pb.ImageInput(bytes=star_png() + b"\0")},
        {"image": pb.ImageInput(bytes=hashlib.sha256(star_png()).digest())},
    ],
)
async def test_another_request_under_the_key_is_refused(client, refusal, key, changes):
    await infer(client, key)
    found = await refused(refusal, infer(client, key, **changes))
    assert (found.reason, found.code) == ("idempotency.key_reused", grpc.StatusCode.FAILED_PRECONDITION)


async def test_what_only_checks_the_image_makes_no_other_request(client, key):
    first = await infer(client, key)
    md5 = base64.b64encode(hashlib.md5(star_png()).digest()).decode()
    image = pb.ImageInput(bytes=star_png(), media_type="image/png", content_md5=md5)
    assert await infer(client, key, image=image) == first


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "a, b"])
async def test_a_malformed_key_is_refused(client, refusal, bad):
    found = await refused(refusal, infer(client, bad))
    assert found.reason == "idempotency.key_invalid"


async def test_a_key_of_any_visible_characters_is_taken(client):
    await infer(client, f"!~{uuid4()}{'x' * 217}")


async def test_a_batch_takes_no_key_and_a_listing_does_not_mind(client, refusal, key):
    entry = pb.BatchInput(id="a", image=pb.ImageInput(bytes=star_png()))
    batch = client.inference.InferBatch(
        pb.InferBatchRequest(model="shapes", inputs=[entry]), metadata=keyed(client.metadata, key)
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [event async for event in batch]
    assert refusal(caught.value).reason == "idempotency.key_invalid"
    call = client.jobs.ListJobs(jobs_pb2.ListJobsRequest(limit=1), metadata=keyed(client.metadata, key))
    await call
    assert await replayed(call) is None


async def test_what_was_wrong_with_the_image_is_told_again(client, key):
    broken = pb.ImageInput(bytes=star_png()[:-200])
    seen = []
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(client, key, image=broken)
        trailers = dict(caught.value.trailing_metadata())
        seen.append((caught.value.details(), trailers["idempotency-replayed"], trailers["request-id"]))
        body = trailers["grpc-status-details-bin"]
        assert seen[0][2].encode() in body
    assert seen[0][0] == seen[1][0]
    assert [entry[1] for entry in seen] == ["false", "true"]
    assert seen[0][2] != seen[1][2]


async def test_a_refused_request_may_be_corrected_under_its_key(client, refusal, key):
    found = await refused(refusal, infer(client, key, model="unknown"))
    assert found.reason == "model.not_found"
    found = await refused(refusal, infer(client, key, image=pb.ImageInput(bytes=b"no image")))
    assert found.reason == "image.invalid_format"
    assert (await infer(client, key)).classes[0].id == "star"


async def test_a_large_answer_comes_again(client, key):
    options = {
        "grad_cam": pb.GradCAMOptions(enabled=True, format="npy"),
        "response": pb.ResponseOptions(heatmap="inline"),
        "image": pb.ImageInput(bytes=encoded(400, 300, "PNG")),
    }
    first = await infer(client, key, **options)
    assert len(first.heatmap.data_b64) > 400_000
    assert await infer(client, key, **options) == first


async def test_a_job_is_made_once_and_told_again(client, stack, key):
    tenant = f"jobs-{uuid4()}"
    metadata = keyed((("authorization", f"Bearer {stack.token(tenant=tenant)}"),), key)
    entry = pb.BatchInput(id="a", image=pb.ImageInput(bytes=star_png()))
    request = jobs_pb2.CreateJobRequest(model="shapes", inputs=[entry])
    calls = [client.jobs.CreateJob(request, metadata=metadata) for _ in range(100)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    receipts = [answer for answer in answers if not isinstance(answer, grpc.aio.AioRpcError)]
    assert len({receipt.job_id for receipt in receipts}) == 1
    assert {answer.code() for answer in answers if isinstance(answer, grpc.aio.AioRpcError)} <= {
        grpc.StatusCode.ABORTED
    }
    again = client.jobs.CreateJob(request, metadata=metadata)
    assert await again == receipts[0]
    headers = dict(await again.initial_metadata())
    assert headers["location"].endswith(receipts[0].job_id)
    assert headers["idempotency-replayed"] == "true"
    listed = await client.jobs.ListJobs(jobs_pb2.ListJobsRequest(), metadata=metadata)
    assert [job.job_id for job in listed.jobs] == [receipts[0].job_id]


async def test_another_tenant_has_keys_of_its_own(client, stack, key):
    mine = await infer(client, key)
    theirs = await infer(client, key, tenant_metadata=(("authorization", f"Bearer {stack.token(tenant='other')}"),))
    assert mine.request_id != theirs.request_id


async def test_a_call_that_was_left_frees_its_key(client, refusal, key):
    large = pb.ImageInput(bytes=encoded(5000, 4000, "JPEG", quality=50))
    call = infer(client, key, image=large)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    answer = None
    while answer is None:
        try:
            answer = await infer(client, key, image=large)
        except grpc.aio.AioRpcError as error:
            found = refusal(error)
            assert (found.reason, found.retryable) == ("idempotency.in_progress", True)
    assert answer.image.width == 5000
