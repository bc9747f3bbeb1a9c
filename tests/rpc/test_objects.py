from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
from tests.images import opened, star_png
from tests.rpc.test_upload import md5_of

from camserve.v1 import inference_pb2, objects_pb2, uploads_pb2, uploads_pb2_grpc


@pytest.fixture
async def link(client):
    answer = await client.inference.Infer(
        inference_pb2.InferRequest(
            model="shapes",
            image=inference_pb2.ImageInput(bytes=star_png()),
            grad_cam=inference_pb2.GradCAMOptions(enabled=True),
        ),
        metadata=client.metadata,
    )
    assert answer.heatmap.type == "url"
    url = urlsplit(answer.heatmap.url)
    return url.path.rpartition("/")[2], parse_qs(url.query)["token"][0]


async def download(client, object_id, token, metadata=()):
    request = objects_pb2.DownloadRequest(object_id=object_id, token=token)
    return [body async for body in client.objects.Download(request, metadata=metadata)]


async def test_a_link_needs_no_other_token(client, link):
    bodies = await download(client, *link)
    assert bodies[0].content_type == "image/png"
    assert opened(b"".join(body.data for body in bodies)).size == opened(star_png()).size


async def test_a_range_is_that_part(client, link):
    whole = b"".join(body.data for body in await download(client, *link))
    part = b"".join(body.data for body in await download(client, *link, metadata=(("range", "bytes=5-9"),)))
    assert part == whole[5:10]


async def test_another_objects_token_is_refused(client, link, refusal):
    object_id, token = link
    other = object_id[:-6] + ("A" if object_id[-6] != "A" else "B") + object_id[-5:]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(client, other, token)
    assert refusal(caught.value).reason == "signature.invalid"


@pytest.mark.parametrize("object_id", ["", "obj_x", "img_0123456789012345678901", "obj_" + "x" * 4000])
async def test_what_is_no_id_is_not_found(client, link, refusal, object_id):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await download(client, object_id, link[1])
    assert refusal(caught.value).reason == "object.not_found"


async def test_objects_are_encrypted_where_they_lie(stack, client, link):
    object_id, _ = link
    stored = next((stack.data_dir / "objects").rglob(object_id))
    assert b"PNG" not in stored.read_bytes()
    assert stored.stat().st_mode & 0o077 == 0


async def test_a_form_by_a_link_is_held_against_the_link_and_its_own_header(client, refusal):
    body = b'--b\r\nContent-Disposition: form-data; name="image"\r\nContent-Type: image/png\r\n\r\n'
    body += star_png() + b"\r\n--b--\r\n"
    uploads = uploads_pb2_grpc.UploadServiceStub(client.channel)

    async def put(of_header, of_link=None, more_bytes=0):
        asked = uploads_pb2.PresignUploadRequest(media_type="image/png", size_bytes=len(star_png()) + more_bytes)
        if of_link:
            asked.content_md5 = md5_of(of_link)
        link = urlsplit((await uploads.PresignUpload(asked, metadata=client.metadata)).upload_url)
        request = objects_pb2.PutObjectRequest(
            object_id=link.path.rpartition("/")[2], token=parse_qs(link.query)["token"][0]
        )
        request.body.content_type, request.body.data = "multipart/form-data; boundary=b", body
        return await client.objects.PutObject(iter([request]), metadata=(("content-md5", md5_of(of_header)),))

    for of_header in (star_png(), body):
        assert (await put(of_header)).size_bytes == len(star_png())
        assert (await put(of_header, star_png())).size_bytes == len(star_png())
    for declared, reason in [
        ((b"other", star_png()), "image.md5_mismatch"),
        ((body, b"other"), "image.md5_mismatch"),
        ((body, None, 1), "param.invalid"),
        ((body, None, -1), "param.invalid"),
    ]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await put(*declared)
        assert refusal(caught.value).reason == reason
