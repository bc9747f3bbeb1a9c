"""One image, in every form and by every way."""

from __future__ import annotations

import io
import os
import threading

import numpy as np
import pytest
from clients.python.tests.conftest import address
from clients.python.tests.pictures import STAR, noise, star_png
from PIL import ExifTags, Image
from tests.images import opened

from camserve_client import AsyncClient, Cam, CamserveError, ImageUrl, StorageId

pytestmark = pytest.mark.timeout(120)


def piped(data):
    """A file that can be read once only."""
    reader, writer = os.pipe()

    def write():
        with os.fdopen(writer, "wb") as file:
            file.write(data)

    threading.Thread(target=write).start()
    return os.fdopen(reader, "rb")


async def test_an_image_comes_in_any_form(client):
    picture = opened(star_png()).convert("RGB")
    with STAR.open("rb") as file, piped(star_png()) as pipe:
        file.seek(0)
        forms = [STAR, str(STAR), star_png(), bytearray(star_png()), memoryview(star_png()), file, pipe, picture]
        forms += [np.asarray(picture), np.asarray(picture.convert("RGBA"))]
        for form in forms:
            answer = await client.infer(form, model="shapes", top_k=2)
            assert answer.top.label == "star", form
            assert len(answer.classes) == 2
            assert (answer.image.width, answer.image.height) == (160, 160)


async def test_a_path_may_be_a_pipe(client, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(star_png(),))
    writer.start()
    assert (await client.infer(path, model="shapes")).top.id == "star"
    writer.join()


async def test_a_file_counts_from_where_it_stands(client):
    file = io.BytesIO(b"head" + star_png())
    file.seek(4)
    assert (await client.infer(file, model="shapes")).top.id == "star"
    assert not file.closed


async def test_gray_of_16_bits_keeps_its_depth(client):
    gray = np.asarray(opened(star_png()).convert("L")).astype("uint16") * 257
    answer = await client.infer(gray, model="shapes")
    assert (answer.top.id, answer.image.media_type) == ("star", "image/png")


async def test_a_picture_is_sent_as_it_is_looked_at(client, tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (60, 30)).save(path, exif=exif)
    with Image.open(path) as picture:
        for image in (path, picture):
            answer = await client.infer(image, model="shapes")
            assert (answer.image.width, answer.image.height) == (30, 60)


@pytest.mark.parametrize("mode", ["HSV", "La", "RGBa", "CMYK", "YCbCr", "P"])
async def test_a_picture_may_have_any_mode(client, mode):
    picture = opened(star_png())
    if mode in ("La", "RGBa"):
        picture = picture.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    assert (await client.infer(picture.convert(mode), model="shapes")).classes


async def test_a_file_that_nobody_writes_is_waited_for_no_longer_than_asked(client, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    try:
        with pytest.raises(CamserveError) as late:
            await client.infer(pipe, model="shapes", timeout_s=0.3)
        assert late.value.code == "timeout.exceeded"
    finally:
        # Whoever opens it waits for a writer.
        os.close(os.open(pipe, os.O_WRONLY))


async def test_what_is_no_image_is_told_before_anything_is_sent(client, tmp_path):
    for wrong in (17, io.StringIO("text"), np.zeros((4, 4)), np.zeros((4, 4, 7), dtype="uint8")):
        with pytest.raises(TypeError):
            await client.infer(wrong, model="shapes")
    with pytest.raises(FileNotFoundError):
        await client.infer(tmp_path / "none.png", model="shapes")
    with pytest.raises(ValueError, match="ImageUrl"):
        await client.infer("https://example.com/star.png", model="shapes")


async def test_probabilities_can_be_taken_apart(client):
    answer = await client.infer(STAR, model="shapes", top_k=10)
    assert [prob for _, _, prob in answer.classes] == sorted((prob for _, _, prob in answer.classes), reverse=True)
    assert 0.99 < sum(prob for *_, prob in answer.classes) < 1.01
    assert (answer.model, answer.model_version, answer.job_id, answer.replayed) == ("shapes", "2", None, False)
    assert answer.request_id
    assert answer.timings_ms.total >= answer.timings_ms.decode


async def test_a_threshold_leaves_classes_out(client):
    answer = await client.infer(STAR, model="shapes", top_k=10, min_prob=0.5)
    assert [one.id for one in answer.classes] == ["star"]


async def test_a_heatmap_is_a_picture_and_an_array(client, tmp_path):
    heatmap = (await client.infer(STAR, model="shapes", cam=True)).heatmap
    assert (heatmap.format, heatmap.width, heatmap.height, heatmap.target) == ("png", 160, 160, "star")
    assert (heatmap.array.shape, heatmap.array.dtype) == ((160, 160, 3), np.uint8)
    assert heatmap.to_pil().size == (160, 160)
    saved = heatmap.save(tmp_path / "cam.png")
    assert saved.read_bytes() == heatmap.data
    with Image.open(heatmap.save(tmp_path / "cam.jpg")) as picture:
        assert picture.format == "JPEG"
    for name in ("cam.npy", "cam.what"):
        with pytest.raises(ValueError, match=r"npy|what"):
            heatmap.save(tmp_path / name)
    values = (await client.infer(STAR, model="shapes", cam=Cam(format="npy"))).heatmap
    assert (values.array.shape, values.array.dtype) == ((160, 160), np.float32)
    assert values.array.min() == 0
    # Brought to the size of the image, which rounds.
    assert 0.9999 < values.array.max() <= 1
    assert values.to_pil().mode == "RGB"


async def test_every_choice_of_a_heatmap_arrives(client):
    cam = Cam(
        method="layercam", layer="joined", target="circle", colormap="viridis", overlay=True, alpha=0.3, size=(40, 30)
    )
    heatmap = (await client.infer(STAR, model="shapes", cam=cam)).heatmap
    assert (heatmap.method, heatmap.layer, heatmap.target) == ("layercam", "joined", "circle")
    assert (heatmap.colormap, heatmap.overlay, heatmap.width, heatmap.height) == ("viridis", True, 40, 30)


async def test_a_heatmap_behind_a_link_is_fetched_on_demand(client):
    answer = await client.infer(STAR, model="shapes", cam=True, heatmap="url")
    assert answer.heatmap.data is None
    assert answer.heatmap.expires_at is not None
    with pytest.raises(ValueError, match="fetch"):
        answer.heatmap.to_pil()
    assert (await client.fetch(answer.heatmap)).to_pil().size == (160, 160)


async def test_a_heatmap_too_large_to_come_along_comes_all_the_same(client):
    heatmap = (await client.infer(STAR, model="shapes", cam=Cam(format="npy", size=(900, 900)))).heatmap
    assert heatmap.url is not None
    assert heatmap.array.shape == (900, 900)


async def test_an_image_of_megabytes_is_streamed(client):
    told = []
    answer = await client.infer(noise(1200), model="shapes", on_progress=told.append)
    assert answer.job_id is None
    assert told[-1].sent_bytes == told[-1].total_bytes == len(noise(1200))
    assert len(told) > 10


async def test_what_becomes_a_job_is_waited_for(client):
    told = []
    answer = await client.infer(noise(2700), model="shapes", cam=Cam(size=(64, 64)), on_progress=told.append)
    assert answer.job_id.startswith("job_")
    assert answer.heatmap.to_pil().size == (64, 64)
    assert told[-1].sent_bytes == len(noise(2700))
    # The upload was for this call only.
    with pytest.raises(CamserveError) as gone:
        await client.get_upload(told[-1].storage_id)
    assert gone.value.code == "upload.not_found"


async def test_an_image_that_is_refused_in_its_job_raises_what_a_call_would(client):
    broken = noise(2700)[:-4000]
    with pytest.raises(CamserveError) as refused:
        await client.infer(broken, model="shapes")
    assert refused.value.status == 422
    assert refused.value.code == "image.decoding_failed"


async def test_a_stored_image_and_one_of_an_address_that_is_not_public(client):
    stored = await client.upload(STAR)
    assert (await client.infer(StorageId(stored.storage_id), model="shapes")).top.id == "star"
    with pytest.raises(CamserveError) as refused:
        await client.infer(ImageUrl("https://127.0.0.1/star.png"), model="shapes")
    assert refused.value.code == "image.url_not_allowed"


async def test_a_refusal_says_all_that_the_service_says(client):
    with pytest.raises(CamserveError) as refused:
        await client.infer(STAR, model="none")
    error = refused.value
    assert (error.code, error.status, error.retry_after_s) == ("model.not_found", 404, None)
    assert error.request_id
    assert error.code in str(error)
    assert error.request_id in str(error)
    with pytest.raises(CamserveError) as refused:
        await client.infer(STAR, model="shapes", top_k=0)
    rule = "must be greater than or equal to 1 and less than or equal to 1000"
    assert refused.value.code == "param.out_of_range"
    assert refused.value.details == {"field": "classify.top_k", "rule": rule}


async def test_the_same_key_has_the_same_answer(client):
    first, again = [await client.infer(STAR, model="shapes", idempotency_key="k1") for _ in range(2)]
    assert (first.replayed, again.replayed) == (False, True)
    assert first.request_id == again.request_id
    with pytest.raises(CamserveError) as refused:
        await client.infer(STAR, model="shapes", top_k=3, idempotency_key="k1")
    assert refused.value.code == "idempotency.key_reused"
    for wrong in ("", "a b", "ä", "a\n", "k" * 256):
        with pytest.raises(CamserveError) as refused:
            await client.infer(STAR, model="shapes", idempotency_key=wrong)
        assert (refused.value.code, refused.value.status) == ("idempotency.key_invalid", 400)


async def test_the_same_key_has_the_same_answer_for_what_is_uploaded_first(client):
    large, other = noise(2700), bytes(reversed(noise(2700)))
    first, again = [await client.infer(large, model="shapes", idempotency_key="k2") for _ in range(2)]
    assert (first.replayed, again.replayed) == (False, True)
    assert first.job_id == again.job_id
    with pytest.raises(CamserveError) as refused:
        await client.infer(other, model="shapes", idempotency_key="k2")
    assert refused.value.code == "idempotency.key_reused"


async def test_no_call_takes_longer_than_it_may(stack, way, connect):
    async with connect(address(stack, way)) as client:
        for image in (STAR, noise(1200), noise(2700)):
            with pytest.raises(CamserveError) as late:
                await client.infer(image, model="shapes", timeout_s=1e-4)
            assert (late.value.code, late.value.status) == ("timeout.exceeded", 504)


async def test_a_token_may_end_in_a_newline(stack, way, tenant):
    async with AsyncClient(address(stack, way), token=stack.token(tenant=tenant) + "\n") as client:
        assert await client.models()


async def test_a_wrong_token_and_none_are_told_apart(stack, way):
    for token, code in (("a.b.c", "auth.invalid_token"), (None, "auth.missing_token")):
        async with AsyncClient(address(stack, way), token=token) as client:
            with pytest.raises(CamserveError) as refused:
                await client.models()
            assert refused.value.status == 401
            # The edge, which sees the token first, tells native callers the canonical code only.
            assert refused.value.code in (code, "auth.invalid_token")
