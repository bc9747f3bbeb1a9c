"""Stream callers wait for slots in fair turns."""

from __future__ import annotations

import asyncio

import pytest

from camserve_server.engine.slots import FairSlots, Rotation


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_tenants_wait_in_rotation() -> None:
    slots, order = FairSlots(1), []

    async def work(tenant: str) -> None:
        await slots.acquire(tenant)
        order.append(tenant)

    await work("a")
    tasks = [asyncio.create_task(work(tenant)) for tenant in "aaab"]
    for _ in tasks:
        await settle()
        slots.release()
    await asyncio.gather(*tasks)
    assert "".join(order) == "aabaa"


async def test_a_caller_who_leaves_gives_up_its_turn_and_its_slot() -> None:
    slots = FairSlots(1)
    await slots.acquire("a")
    leaves_waiting = asyncio.create_task(slots.acquire("a"))
    leaves_called = asyncio.create_task(slots.acquire("a"))
    stays = asyncio.create_task(slots.acquire("a"))
    await settle()
    leaves_waiting.cancel()
    await settle()
    slots.release()
    leaves_called.cancel()
    await stays
    for task in (leaves_waiting, leaves_called):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_all_slots_are_free_again_afterwards() -> None:
    slots = FairSlots(2)
    for _ in range(5):
        await slots.acquire("a")
        await slots.acquire("b")
        slots.release()
        slots.release()
    await asyncio.wait_for(slots.acquire("c"), 5)


def order(rotation: Rotation[str], count: int) -> str:
    return "".join(rotation.pop() for _ in range(count))


def waiting(**counts: int) -> Rotation[str]:
    rotation: Rotation[str] = Rotation()
    for tenant, count in counts.items():
        for _ in range(count):
            rotation.push(tenant, tenant)
    return rotation


def test_who_comes_new_goes_ahead_of_who_had_much() -> None:
    rotation = waiting(a=30)
    order(rotation, 10)
    for _ in range(5):
        rotation.push("b", "b")
    assert order(rotation, 6) == "bbbbba"


def test_who_asks_for_as_much_gets_as_much() -> None:
    rotation = waiting(a=300, b=200)
    order(rotation, 100)
    for _ in range(200):
        rotation.push("c", "c")
    turns = order(rotation, 400)
    assert max(turns.count(one) - turns.count(other) for one in "abc" for other in "abc") <= 50
    assert turns[-30:].count("c") == 10


def test_what_a_tenant_had_is_forgotten() -> None:
    rotation = waiting(a=64)
    order(rotation, 64)
    for _ in range(1000):
        rotation.push("b", "b")
    order(rotation, 900)
    rotation.push("a", "a")
    assert order(rotation, 1) == "a"


def test_who_left_takes_no_turn() -> None:
    rotation = waiting(a=1, b=1)
    rotation.discard("a", "a")
    rotation.discard("a", "a")
    assert (order(rotation, 1), len(rotation)) == ("b", 0)
    with pytest.raises(KeyError):
        rotation.pop()
