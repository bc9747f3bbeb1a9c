from __future__ import annotations

import asyncio

import pytest

from camserve_server.core import warm_inputs
from camserve_server.core.warm_inputs import WarmInputs
from camserve_server.engine.buffers import ByteBudget, SharedBuffer


def image(data: bytes, budget: ByteBudget | None = None) -> SharedBuffer:
    buffer = SharedBuffer.create("image", budget)
    buffer.append(data)
    return buffer


async def test_an_input_is_taken_once_and_outlives_the_one_that_was_stored():
    warm = WarmInputs(limit_bytes=100)
    with image(b"picture") as stored:
        warm.keep("obj_1", stored)
    taken = warm.take("obj_1")
    assert taken
    with taken:
        assert bytes(taken.view()) == b"picture"
    assert warm.take("obj_1") is None


async def test_there_is_room_for_so_much_and_no_more():
    warm = WarmInputs(limit_bytes=10)
    with image(b"x" * 6) as stored:
        warm.keep("obj_1", stored)
        warm.keep("obj_2", stored)
        assert warm.take("obj_2") is None
        warm.drop("obj_1")
        warm.keep("obj_2", stored)
        assert warm.take("obj_2")


async def test_memory_that_others_need_is_not_taken():
    budget = ByteBudget(10)
    with image(b"x" * 6, budget) as stored:
        warm = WarmInputs(limit_bytes=100)
        warm.keep("obj_1", stored)
        assert warm.take("obj_1") is None
    assert budget.try_take(10)


async def test_an_input_that_nobody_takes_goes(monkeypatch):
    monkeypatch.setattr(warm_inputs, "_KEPT_S", 0)
    budget = ByteBudget(12)
    warm = WarmInputs(limit_bytes=100)
    with image(b"x" * 6, budget) as stored:
        warm.keep("obj_1", stored)
    await asyncio.sleep(0.01)
    assert budget.try_take(12)
    warm.close()


@pytest.mark.parametrize("count", [0, 3])
async def test_closing_lets_go_of_all(count):
    budget = ByteBudget(100)
    warm = WarmInputs(limit_bytes=100)
    with image(b"x" * 6, budget) as stored:
        for number in range(count):
            warm.keep(f"obj_{number}", stored)
    warm.close()
    assert budget.try_take(100)
