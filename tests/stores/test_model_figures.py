from __future__ import annotations

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores import keys
from camserve_server.stores.model_figures import FigureRecords, add
from camserve_server.stores.redis import connect


def test_figures_are_added_by_series_and_name():
    total = {"2 answer": {"calls": 1}}
    add(total, {"2 answer": {"calls": 2, "errors": 1}, "3 against 2": {"iou": 0.5}})
    assert total == {"2 answer": {"calls": 3, "errors": 1}, "3 against 2": {"iou": 0.5}}


async def test_figures_of_all_replicas_are_read_together(redis):
    one, other = FigureRecords(redis), FigureRecords(redis)
    await one.write({("shapes", 7): {"2 answer": {"calls": 1}}, ("other", 7): {"1 answer": {"calls": 9}}}, keep_s=300)
    await other.write({("shapes", 7): {"2 answer": {"calls": 2}, "3 answer": {"calls": 5}}}, keep_s=300)
    assert await one.read("shapes", [6, 7]) == {6: {}, 7: {"2 answer": {"calls": 3}, "3 answer": {"calls": 5}}}
    assert await one.read("shapes", []) == {}


async def test_a_span_that_is_written_again_counts_once(redis):
    records = FigureRecords(redis)
    for calls in (1, 3, 3):
        await records.write({("shapes", 7): {"2 answer": {"calls": calls}}}, keep_s=300)
    assert await records.read("shapes", [7]) == {7: {"2 answer": {"calls": 3}}}


async def test_figures_expire_a_little_after_the_window(redis):
    await FigureRecords(redis).write({("a:b", 7): {}}, keep_s=300)
    (name,) = await redis.keys("*")
    assert name.decode() == keys.model_figures("a:b", 7)
    assert 300 < await redis.ttl(name) <= 360


async def test_a_store_that_is_away_says_so():
    client = connect("redis://127.0.0.1:1", timeout_s=0.5)
    records = FigureRecords(client)
    for ask in (records.write({("shapes", 7): {}}, keep_s=300), records.read("shapes", [7])):
        with pytest.raises(ApiError) as caught:
            await ask
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    await client.aclose()
