from __future__ import annotations

import asyncio
import base64
import hashlib
import io

import grpc
import numpy as np
import pytest
from tests.images import encoded, opened, star_png

from camserve.v1 import inference_pb2 as pb
from camserve.v1 import jobs_pb2 as jobs_pb


def request(**changes):
    fields = {"model": "shapes", "image": pb.ImageInput(bytes=star_png())} | changes
    return pb.InferRequest(**fields)


async def refused(client, refusal, message):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.inference.Infer(message, metadata=client.metadata)
    return refusal(caught.value)


async def test_an_image_gets_classes_in_descending_order(client):
    answer = await client.inference.Infer(request(), metadata=client.metadata)
    assert answer.classes[0].id == "star"
    assert len(answer.classes) == 5
    probs = [entry.prob for entry in answer.classes]
    assert probs == sorted(probs, reverse=True)
    assert answer.model_version == "2"
    assert (answer.image.width, answer.image.height) == opened(star_png()).size
    assert answer.image.sha256 == hashlib.sha256(star_png()).hexdigest()
    assert not answer.HasField("heatmap")


async def test_the_request_id_is_in_the_headers_and_the_body(client):
    call = client.inference.Infer(request(), metadata=client.metadata)
    answer = await call
    assert dict(await call.initial_metadata())["request-id"] == answer.request_id


async def test_top_k_and_threshold_limit_the_classes(client):
    options = pb.ClassificationOptions(top_k=3)
    answer = await client.inference.Infer(request(classify=options), metadata=client.metadata)
    assert len(answer.classes) == 3
    options = pb.ClassificationOptions(top_k=10, prob_threshold=0.5)
    answer = await client.inference.Infer(request(classify=options), metadata=client.metadata)
    assert [entry.id for entry in answer.classes] == ["star"]


@pytest.mark.parametrize("version", ["1", "2", "stable", ""])
async def test_a_version_or_an_alias_chooses_the_version(client, version):
    answer = await client.inference.Infer(request(model_version=version), metadata=client.metadata)
    assert answer.model_version == ("1" if version == "1" else "2")


async def test_an_inline_heatmap_is_a_png_of_the_images_size(client):
    message = request(grad_cam=pb.GradCAMOptions(enabled=True), response=pb.ResponseOptions(heatmap="inline"))
    heatmap = (await client.inference.Infer(message, metadata=client.metadata)).heatmap
    drawn = opened(heatmap.data_b64)
    assert (drawn.format, drawn.mode, drawn.size) == ("PNG", "RGB", (heatmap.width, heatmap.height))
    assert drawn.size == opened(star_png()).size
    assert (heatmap.type, heatmap.format, heatmap.colormap, heatmap.method) == ("png", "png", "jet", "gradcam")
    assert (heatmap.target, heatmap.normalization, heatmap.degenerate) == ("star", "0-1", False)
    assert heatmap.raw_max > heatmap.raw_min >= 0


async def test_an_npy_heatmap_is_float32_from_zero_to_one(client):
    message = request(
        grad_cam=pb.GradCAMOptions(enabled=True, format="npy"), response=pb.ResponseOptions(heatmap="inline")
    )
    heatmap = (await client.inference.Infer(message, metadata=client.metadata)).heatmap
    array = np.load(io.BytesIO(heatmap.data_b64), allow_pickle=False)
    assert array.dtype == np.float32
    assert array.shape == (heatmap.height, heatmap.width)
    assert array.flags.c_contiguous
    assert array.min() >= 0
    assert 0.9 < array.max() <= 1


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "hirescam", "layercam", "xgradcam", "eigencam"])
async def test_every_method_of_the_contract_answers(client, method):
    message = request(
        grad_cam=pb.GradCAMOptions(enabled=True, method=method, target="circle"),
        response=pb.ResponseOptions(heatmap="inline"),
    )
    heatmap = (await client.inference.Infer(message, metadata=client.metadata)).heatmap
    assert (heatmap.method, heatmap.target) == (method, "circle")


async def test_an_explicit_resolution_is_the_size_of_the_drawing(client):
    options = pb.GradCAMOptions(enabled=True, overlay=True)
    options.resolution.struct_value.update({"width": 300, "height": 200})
    message = request(grad_cam=options, response=pb.ResponseOptions(heatmap="inline"))
    heatmap = (await client.inference.Infer(message, metadata=client.metadata)).heatmap
    assert opened(heatmap.data_b64).size == (300, 200)
    assert heatmap.overlay


async def test_alpha_zero_shows_the_image_and_one_the_map(client):
    async def drawing(alpha, overlay=True):
        options = pb.GradCAMOptions(enabled=True, overlay=overlay, alpha=alpha)
        message = request(grad_cam=options, response=pb.ResponseOptions(heatmap="inline"))
        answer = await client.inference.Infer(message, metadata=client.metadata)
        return np.asarray(opened(answer.heatmap.data_b64)).astype(int)

    image = np.asarray(opened(star_png()).convert("RGB")).astype(int)
    assert abs(await drawing(0) - image).max() <= 1
    assert abs(await drawing(1) - await drawing(1, overlay=False)).max() <= 1


async def test_longest_side_shrinks_what_input_means(client):
    message = request(
        image=pb.ImageInput(bytes=encoded(400, 200)),
        resize=pb.Resize(longest_side=100),
        grad_cam=pb.GradCAMOptions(enabled=True),
        response=pb.ResponseOptions(heatmap="inline"),
    )
    answer = await client.inference.Infer(message, metadata=client.metadata)
    assert (answer.heatmap.width, answer.heatmap.height) == (100, 50)
    assert (answer.image.width, answer.image.height) == (400, 200)


async def test_a_heatmap_too_large_to_be_inline_comes_by_link(client):
    options = pb.GradCAMOptions(enabled=True, format="npy")
    options.resolution.struct_value.update({"width": 1024, "height": 1024})
    message = request(grad_cam=options, response=pb.ResponseOptions(heatmap="inline"))
    heatmap = (await client.inference.Infer(message, metadata=client.metadata)).heatmap
    assert (heatmap.type, heatmap.format) == ("url", "npy")
    assert not heatmap.HasField("data_b64")


INVALID, RANGE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE
UNAVAILABLE, NOT_FOUND = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND


def cam(**options):
    return pb.GradCAMOptions(enabled=True, **options)


def sized(**members):
    options = pb.GradCAMOptions(enabled=True)
    options.resolution.struct_value.update(members)
    return options


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"model": ""}, INVALID, "param.invalid"),
        ({"model": "nobody"}, NOT_FOUND, "model.not_found"),
        ({"model_version": "99"}, NOT_FOUND, "model.version_not_found"),
        ({"model": "broken"}, UNAVAILABLE, "model.unavailable"),
        ({"image": None}, INVALID, "image.source_required"),
        ({"image": pb.ImageInput(bytes=b"")}, INVALID, "image.source_required"),
        ({"image": pb.ImageInput(bytes=b"hello, world")}, INVALID, "image.invalid_format"),
        ({"image": pb.ImageInput(bytes=encoded(fmt="GIF"))}, INVALID, "media.unsupported"),
        ({"image": pb.ImageInput(bytes=encoded(), media_type="image/jpeg")}, INVALID, "media.mismatch"),
        ({"image": pb.ImageInput(bytes=encoded(), content_md5="AAAA")}, INVALID, "image.base64_invalid"),
        ({"image": pb.ImageInput(bytes=encoded(), content_md5="A" * 4000)}, INVALID, "image.base64_invalid"),
        ({"image": pb.ImageInput(bytes=encoded(), content_md5="A" * 21 + "B==")}, INVALID, "image.base64_invalid"),
        ({"image": pb.ImageInput(storage_id="img_none")}, NOT_FOUND, "upload.not_found"),
        ({"image": pb.ImageInput(storage_id="x" * 4000)}, NOT_FOUND, "upload.not_found"),
        ({"image": pb.ImageInput(bytes=encoded()[:-60])}, grpc.StatusCode.FAILED_PRECONDITION, "image.decoding_failed"),
        ({"image": pb.ImageInput(bytes=encoded(201, 1))}, INVALID, "image.aspect_ratio"),
        ({"image": pb.ImageInput(bytes=encoded(17000, 100))}, INVALID, "image.too_large"),
        ({"classify": pb.ClassificationOptions(top_k=0)}, INVALID, "param.out_of_range"),
        ({"classify": pb.ClassificationOptions(top_k=1001)}, INVALID, "param.out_of_range"),
        ({"classify": pb.ClassificationOptions(prob_threshold=1.5)}, INVALID, "param.out_of_range"),
        ({"classify": pb.ClassificationOptions(prob_threshold=float("nan"))}, INVALID, "param.out_of_range"),
        ({"resize": pb.Resize(longest_side=3)}, INVALID, "param.out_of_range"),
        ({"grad_cam": cam(layer="nowhere")}, INVALID, "param.layer_not_found"),
        ({"grad_cam": cam(colormap="beige")}, INVALID, "param.invalid"),
        ({"grad_cam": cam(method="guesscam")}, INVALID, "param.invalid"),
        ({"grad_cam": cam(format="bmp")}, INVALID, "param.invalid"),
        ({"grad_cam": cam(target="dodecahedron")}, INVALID, "param.invalid"),
        ({"grad_cam": cam(alpha=2)}, INVALID, "param.out_of_range"),
        ({"grad_cam": cam(overlay=True, format="npy")}, INVALID, "param.invalid"),
        ({"grad_cam": sized(width=4097, height=10)}, INVALID, "param.out_of_range"),
        ({"grad_cam": sized(width=0, height=10)}, INVALID, "param.out_of_range"),
        ({"grad_cam": sized(width=10.5, height=10)}, INVALID, "param.invalid"),
        ({"grad_cam": sized(width=10)}, INVALID, "param.invalid"),
        ({"response": pb.ResponseOptions(heatmap="fax")}, INVALID, "param.invalid"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_its_code(client, refusal, changes, code, reason):
    seen = await refused(client, refusal, request(**changes))
    assert (seen.code, seen.reason, seen.error.code) == (code, reason, reason)
    assert seen.retryable == (code is UNAVAILABLE)


async def test_a_wrong_md5_is_refused_and_the_right_one_is_not(client, refusal):
    right = base64.b64encode(hashlib.md5(star_png()).digest()).decode()
    await client.inference.Infer(
        request(image=pb.ImageInput(bytes=star_png(), content_md5=right)), metadata=client.metadata
    )
    wrong = base64.b64encode(bytes(16)).decode()
    seen = await refused(client, refusal, request(image=pb.ImageInput(bytes=star_png(), content_md5=wrong)))
    assert seen.reason == "image.md5_mismatch"


async def test_an_unavailable_model_says_why(client, refusal):
    seen = await refused(client, refusal, request(model="broken"))
    assert seen.error.status == 503
    assert seen.error.details["why"]


async def test_a_deadline_that_has_passed_is_a_timeout_of_ours_or_of_grpc(client):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.inference.Infer(request(), metadata=client.metadata, timeout=0.001)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_caller_who_leaves_disturbs_nobody(client):
    calls = [client.inference.Infer(request(grad_cam=cam()), metadata=client.metadata) for _ in range(16)]
    for call in calls[::2]:
        call.cancel()
    for call in calls[1::2]:
        assert (await call).classes[0].id == "star"


async def test_concurrent_calls_get_the_answers_of_lonely_ones(client):
    pictures = [encoded(40 + 8 * index, 64) for index in range(8)]

    async def infer(picture):
        message = request(
            image=pb.ImageInput(bytes=picture),
            grad_cam=cam(format="npy"),
            response=pb.ResponseOptions(heatmap="inline"),
        )
        answer = await client.inference.Infer(message, metadata=client.metadata)
        array = np.load(io.BytesIO(answer.heatmap.data_b64), allow_pickle=False)
        return {entry.id: entry.prob for entry in answer.classes}, array

    alone = [await infer(picture) for picture in pictures]
    together = await asyncio.gather(*(infer(picture) for picture in pictures))
    for (probs, heatmap), (expected_probs, expected_heatmap) in zip(together, alone, strict=True):
        assert probs == pytest.approx(expected_probs, abs=1e-5)
        assert abs(heatmap - expected_heatmap).max() < 1e-4


async def test_bytes_that_are_no_message_are_refused_in_our_words(stack, refusal):
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        infer = channel.unary_unary("/camserve.v1.InferenceService/Infer")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer(b"\xff\xff", metadata=(("authorization", f"Bearer {stack.token()}"),))
    assert refusal(caught.value).reason == "param.invalid"


async def test_a_caller_who_prefers_not_to_wait_gets_a_job(client):
    metadata = (*client.metadata, ("prefer", "wait=5, respond-async;x=1"))
    call = client.inference.Infer(request(grad_cam=pb.GradCAMOptions(enabled=True)), metadata=metadata)
    receipt = await call
    headers = dict(await call.initial_metadata())
    assert headers["location"].endswith(f"/v1/jobs/{receipt.job_id}")
    assert headers["preference-applied"] == "respond-async"
    assert (receipt.status, receipt.counts.submitted) == (pb.InferResponse.queued, 1)
    assert receipt.HasField("estimated_wait_ms")
    assert (receipt.model, receipt.model_version, list(receipt.classes)) == ("shapes", "2", [])
    async for event in client.jobs.WatchJob(jobs_pb.WatchJobRequest(job_id=receipt.job_id), metadata=client.metadata):
        last = event
    assert last.job.status == jobs_pb.Job.succeeded
    assert last.job.result.classes[0].id == "star"
    assert last.job.result.heatmap.url


async def test_an_answer_at_once_has_none_of_a_receipts_fields(client):
    call = client.inference.Infer(request(), metadata=(*client.metadata, ("prefer", "handling=respond-async")))
    answer = await call
    assert not any(answer.HasField(name) for name in ("job_id", "status", "counts", "estimated_wait_ms"))
    assert "location" not in dict(await call.initial_metadata())


async def test_what_a_job_would_refuse_at_once_is_refused_at_once(client, refusal):
    metadata = (*client.metadata, ("prefer", "respond-async"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.inference.Infer(request(model="unknown"), metadata=metadata)
    assert refusal(caught.value).reason == "model.not_found"
