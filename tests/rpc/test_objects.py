from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import grpc
import pytest
from tests.images import opened, star_png

from camserve.v1 import inference_pb2, objects_pb2


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
