"""Stream callers wait for slots in fair turns."""

from __future__ import annotations

import asyncio

import pytest

from camserve_server.engine.slots import FairSlots


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
