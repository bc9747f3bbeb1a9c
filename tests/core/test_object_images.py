from __future__ import annotations

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.object_images import load
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.local_objects import LocalObjects


@pytest.fixture
async def objects(tmp_path):
    clock = FakeClock()
    store = LocalObjects(tmp_path / "objects", KeyRing(tmp_path / "objects.json", clock=clock), clock=clock)
    yield store
    await store.close()


async def loaded(objects, size, budget):
    object_id = await objects.put("acme", bytes(size), content_type="image/png", expires_at=2e9)
    return await load(objects, "acme", object_id, budget)


async def test_an_image_that_never_fits_is_too_large_and_not_a_matter_of_time(objects):
    with pytest.raises(ApiError) as caught:
        await loaded(objects, 2_000_001, ByteBudget(2_000_000, least_bytes=2_000_000))
    assert caught.value.reason is Reason.UPLOAD_TOO_LARGE
    assert caught.value.details == {"limit_mb": 2.0, "actual_mb": 2.000001}


async def test_an_image_that_fits_later_is_to_come_again(objects):
    budget = ByteBudget(2_000_000, least_bytes=2_000_000)
    with await loaded(objects, 2_000_000, budget):
        with pytest.raises(ApiError) as caught:
            await loaded(objects, 1, budget)
        assert caught.value.reason is Reason.SERVICE_OVERLOADED
    with await loaded(objects, 1, budget) as image:
        assert image.size == 1
