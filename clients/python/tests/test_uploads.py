"""Uploads: whole, piece by piece, resumed."""

from __future__ import annotations

import base64
import hashlib
from itertools import pairwise

import pytest
from clients.python.tests.pictures import STAR, noise, star_png

from camserve_client import CamserveError, ImageUrl

pytestmark = pytest.mark.timeout(180)


class StoppedError(Exception):
    """What a test stops an upload with."""


async def test_a_small_image_is_stored_at_once(client):
    stored = await client.upload(STAR, media_type="image/png")
    assert (stored.size_bytes, stored.media_type) == (len(star_png()), "image/png")
    assert (stored.width, stored.height) == (160, 160)
    assert stored.sha256 == hashlib.sha256(star_png()).hexdigest()
    assert await client.get_upload(stored.storage_id) == stored
    await client.delete_upload(stored.storage_id)
    with pytest.raises(CamserveError) as gone:
        await client.get_upload(stored.storage_id)
    assert gone.value.code == "upload.not_found"


async def test_a_large_image_goes_in_pieces(client, tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(noise(2700))
    told = []
    stored = await client.upload(path, on_progress=told.append)
    assert stored.sha256 == hashlib.sha256(noise(2700)).hexdigest()
    assert {one.storage_id for one in told} == {stored.storage_id}
    assert told[-1].sent_bytes == told[-1].total_bytes == len(noise(2700))
    assert all(one.sent_bytes <= two.sent_bytes for one, two in pairwise(told))


async def test_an_upload_goes_on_after_its_program_ended(client):
    told = []

    def stop(progress):
        told.append(progress)
        if progress.sent_bytes > 9_000_000:
            raise StoppedError

    with pytest.raises(StoppedError):
        await client.upload(noise(2700), on_progress=stop)
    rest = []
    stored = await client.upload(noise(2700), resume=told[0].storage_id, on_progress=rest.append)
    assert stored.storage_id == told[0].storage_id
    assert stored.sha256 == hashlib.sha256(noise(2700)).hexdigest()
    assert rest[0].sent_bytes > 8 << 20
    assert (await client.upload(noise(2700), resume=stored.storage_id)) == stored


async def test_an_upload_that_there_is_not_is_not_resumed(client):
    with pytest.raises(CamserveError) as refused:
        await client.upload(noise(1300), resume="img_0000000000000000000000")
    assert (refused.value.code, refused.value.status) == ("upload.not_found", 404)


async def test_another_image_does_not_resume_an_upload(client):
    told = []

    def stop(progress):
        told.append(progress)
        raise StoppedError

    with pytest.raises(StoppedError):
        await client.upload(noise(1300), on_progress=stop)
    with pytest.raises(ValueError, match="bytes"):
        await client.upload(STAR, resume=told[0].storage_id)


@pytest.mark.parametrize("data", [star_png(), noise(1300)], ids=["whole", "in pieces"])
async def test_a_digest_and_a_type_are_checked(client, data):
    def digest(of):
        return base64.b64encode(hashlib.md5(of, usedforsecurity=False).digest()).decode()

    assert await client.upload(data, content_md5=digest(data), media_type="image/png")
    with pytest.raises(CamserveError) as refused:
        await client.upload(data, content_md5=digest(b"other"))
    assert refused.value.code == "image.md5_mismatch"
    with pytest.raises(CamserveError) as refused:
        await client.upload(data, media_type="image/jpeg")
    assert refused.value.code == "media.mismatch"


async def test_what_is_no_image_is_refused(client):
    for data in (b"nothing", bytes(5_000_000)):
        with pytest.raises(CamserveError) as refused:
            await client.upload(data)
        assert refused.value.code == "image.invalid_format"
    with pytest.raises(CamserveError):
        await client.upload(b"")
    with pytest.raises(TypeError):
        await client.upload(ImageUrl("https://example.com/a.png"))


async def test_a_file_that_becomes_shorter_is_told(client, tmp_path):
    path = tmp_path / "short.png"
    path.write_bytes(noise(1300))

    def cut(progress):
        path.write_bytes(b"")

    with pytest.raises(OSError, match="shorter"):
        await client.upload(path, on_progress=cut)


async def test_a_link_takes_one_image_from_anybody(client):
    link = await client.presign_upload(media_type="image/png", size_bytes=len(star_png()))
    assert (link.method, link.headers["Content-Type"]) == ("PUT", "image/png")
    assert link.upload_url.startswith("http")
