from __future__ import annotations

import asyncio
import base64
import hashlib

import grpc
import pytest
from google.api import httpbody_pb2
from tests.images import star_png

from camserve.v1 import inference_pb2 as pb


def messages(data, *, chunk=1000, content_type="image/png", **first):
    body = httpbody_pb2.HttpBody(content_type=content_type, data=data[:chunk])
    yield pb.InferUploadRequest(**({"model": "shapes"} | first), body=body)
    for start in range(chunk, len(data), chunk):
        yield pb.InferUploadRequest(body=httpbody_pb2.HttpBody(data=data[start : start + chunk]))


async def upload(client, stream, *metadata):
    return await client.inference.InferUpload(stream, metadata=(*client.metadata, *metadata))


async def refused(client, refusal, stream, *metadata):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await upload(client, stream, *metadata)
    return refusal(caught.value)


def md5_of(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


async def test_a_streamed_image_is_classified(client):
    answer = await upload(client, messages(star_png(), size_bytes=len(star_png())))
    assert answer.classes[0].id == "star"
    assert answer.image.sha256 == hashlib.sha256(star_png()).hexdigest()


async def test_an_md5_stands_in_for_the_length(client):
    answer = await upload(client, messages(star_png(), content_md5=md5_of(star_png())))
    assert answer.classes[0].id == "star"


async def test_an_md5_may_come_as_metadata(client, refusal):
    answer = await upload(client, messages(star_png()), ("content-md5", md5_of(star_png())))
    assert answer.classes[0].id == "star"
    whole = {"size_bytes": len(star_png())}
    for value, reason in ((md5_of(b"other"), "image.md5_mismatch"), ("x", "image.base64_invalid")):
        seen = await refused(client, refusal, messages(star_png(), **whole), ("content-md5", value))
        assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_every_md5_that_is_declared_must_be_the_images(client, refusal):
    right, wrong = md5_of(star_png()), md5_of(b"other")
    for in_metadata, in_field in ((right, wrong), (wrong, right)):
        seen = await refused(client, refusal, messages(star_png(), content_md5=in_field), ("content-md5", in_metadata))
        assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "image.md5_mismatch")
    seen = await refused(client, refusal, messages(star_png(), content_md5="x"), ("content-md5", right))
    assert seen.reason == "image.base64_invalid"
    answer = await upload(client, messages(star_png(), content_md5=right), ("content-md5", right))
    assert answer.classes[0].id == "star"


def form_of(data):
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head + data + b"\r\n--x--\r\n"


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"size_bytes": len(star_png()) - 1}, "param.invalid"),
        ({"size_bytes": len(star_png()) + 1}, "param.invalid"),
        ({"size_bytes": 100_000_001}, "upload.too_large"),
        ({"content_md5": md5_of(b"other")}, "image.md5_mismatch"),
        ({"content_md5": "x"}, "image.base64_invalid"),
    ],
)
async def test_what_is_declared_beside_a_form_is_held_against_its_file(client, refusal, declared, reason):
    type_of_form = {"content_type": "multipart/form-data; boundary=x"}
    right = {"size_bytes": len(star_png()), "content_md5": md5_of(star_png())}
    seen = await refused(client, refusal, messages(form_of(star_png()), **type_of_form, **right | declared))
    assert seen.reason == reason
    answer = await upload(client, messages(form_of(star_png()), **type_of_form, **right))
    assert answer.classes[0].id == "star"


async def test_without_length_and_md5_an_upload_is_refused(client, refusal):
    seen = await refused(client, refusal, messages(star_png()))
    assert (seen.code, seen.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "upload.length_required")


async def test_a_form_with_an_empty_file_has_no_image(client, refusal):
    form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\r\n--x--\r\n'
    seen = await refused(client, refusal, messages(form, content_type="multipart/form-data; boundary=x"))
    assert seen.reason == "image.source_required"


@pytest.mark.parametrize("difference", [-1, 1])
async def test_other_bytes_than_declared_are_refused(client, refusal, difference):
    seen = await refused(client, refusal, messages(star_png(), size_bytes=len(star_png()) + difference))
    assert seen.reason == "param.invalid"


async def test_more_bytes_than_declared_are_refused_before_the_rest_has_come(client, refusal):
    async def unended():
        yield next(messages(star_png(), size_bytes=100))
        await asyncio.Event().wait()

    seen = await refused(client, refusal, unended())
    assert seen.reason == "param.invalid"


async def test_a_declared_size_past_the_limit_is_refused_before_the_bytes(client, refusal):
    seen = await refused(client, refusal, messages(star_png(), size_bytes=100_000_001))
    assert (seen.code, seen.reason) == (grpc.StatusCode.OUT_OF_RANGE, "upload.too_large")
    assert dict(seen.error.details)["limit_mb"] == 100


async def test_an_unknown_model_is_refused_before_the_bytes(client, refusal):
    seen = await refused(client, refusal, messages(star_png(), size_bytes=len(star_png()), model="nobody"))
    assert seen.reason == "model.not_found"


async def test_a_stream_without_a_message_is_refused(client, refusal):
    seen = await refused(client, refusal, iter(()))
    assert seen.reason == "image.source_required"


async def test_a_declared_type_that_the_bytes_contradict_is_refused(client, refusal):
    stream = messages(star_png(), size_bytes=len(star_png()), content_type="image/jpeg")
    assert (await refused(client, refusal, stream)).reason == "media.mismatch"


async def test_options_may_come_as_json(client):
    stream = messages(
        star_png(), size_bytes=len(star_png()), model="", request='{"model": "shapes", "classify": {"top_k": 1}}'
    )
    assert len((await upload(client, stream)).classes) == 1


async def test_options_as_json_and_as_fields_are_refused(client, refusal):
    stream = messages(star_png(), size_bytes=len(star_png()), request='{"model": "shapes"}')
    assert (await refused(client, refusal, stream)).reason == "param.invalid"
