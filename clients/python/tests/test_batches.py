"""Many images as a stream."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from clients.python.tests.pictures import SQUARE, STAR, noise, star_png

from camserve_client import Ask, Cam, CamserveError, Input, StorageId

pytestmark = pytest.mark.timeout(180)


async def outcomes(items):
    return {item.id: item async for item in items}


async def test_every_image_has_its_outcome(client):
    images = {"star": STAR, "square": SQUARE.read_bytes(), "broken": star_png()[:200], "none": b"nothing"}
    items = await outcomes(client.infer_batch(images, model="shapes", cam=True))
    assert items["star"].result.top.id == "star"
    assert items["square"].result.heatmap.to_pil().size == (160, 160)
    assert (items["broken"].status, items["broken"].error.code) == ("failed", "image.decoding_failed")
    assert items["none"].error.code == "image.invalid_format"
    assert items["none"].result is None


async def test_a_sequence_is_told_apart_by_place_or_by_ids_of_its_own(client):
    inputs = [STAR, Input(SQUARE, "own", Ask(top_k=1, cam=Cam(format="npy"))), STAR]
    items = await outcomes(client.infer_batch(inputs, model="shapes", top_k=3))
    assert {name: len(item.result.classes) for name, item in items.items()} == {"0": 3, "own": 1, "2": 3}
    assert items["own"].result.heatmap.format == "npy"
    assert items["0"].result.heatmap is None


async def test_more_images_than_a_request_takes_come_as_they_are_read(client):
    read = []

    async def images():
        for number in range(300):
            read.append(number)
            yield Input(STAR, f"n{number}")

    first_at = None
    names = set()
    async for item in client.infer_batch(images(), model="shapes", top_k=1):
        first_at = first_at or len(read)
        names.add(item.id)
        assert item.result.top.id == "star"
    assert names == {f"n{number}" for number in range(300)}
    assert first_at < 100


async def test_images_of_many_megabytes_go_along(client):
    images = {"uploaded": noise(1800), "photo": noise(1300), "another": noise(1301), "small": STAR}
    items = await outcomes(client.infer_batch(images, model="shapes"))
    assert {item.status for item in items.values()} == {"succeeded"}
    assert items["uploaded"].result.image.width == 1800


async def test_a_heatmap_too_large_to_come_along_comes_all_the_same(client):
    large = Cam(format="npy", size=(900, 900))
    items = await outcomes(client.infer_batch([STAR], model="shapes", cam=large))
    assert items["0"].result.heatmap.array.shape == (900, 900)
    items = await outcomes(client.infer_batch([STAR], model="shapes", cam=large, heatmap="url"))
    assert items["0"].result.heatmap.data is None


async def test_a_refused_upload_is_an_item_that_failed(client):
    items = await outcomes(client.infer_batch({"large": bytes(9_000_000), "good": STAR}, model="shapes"))
    assert items["large"].error.code == "image.invalid_format"
    assert items["good"].result.top.id == "star"


async def test_a_stored_image_goes_by_its_id(client):
    stored = await client.upload(STAR)
    items = await outcomes(client.infer_batch([StorageId(stored.storage_id)], model="shapes"))
    assert items["0"].result.top.id == "star"


async def test_a_caller_may_stop_early(client):
    async with aclosing(client.infer_batch([STAR] * 20, model="shapes")) as items:
        async for item in items:
            assert item.result
            break


async def test_what_is_wrong_with_all_of_it_is_raised(client, tmp_path):
    for inputs, model, code in (([STAR], "none", "model.not_found"), ([Input(STAR, "a")] * 2, "shapes", "batch.")):
        with pytest.raises(CamserveError) as refused:
            await outcomes(client.infer_batch(inputs, model=model))
        assert refused.value.code.startswith(code)
    with pytest.raises(FileNotFoundError):
        await outcomes(client.infer_batch([tmp_path / "none.png"], model="shapes"))
    path = tmp_path / "vanishing.png"
    path.write_bytes(noise(1800))

    async def vanishing():
        yield path
        path.write_bytes(b"")

    with pytest.raises(OSError, match="shorter"):
        await outcomes(client.infer_batch(vanishing(), model="shapes"))
    assert await outcomes(client.infer_batch([], model="shapes")) == {}
