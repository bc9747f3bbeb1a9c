"""Single messages on their way: few of a tenant, and room for everybody."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, ExitStack

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.open_calls import OpenCalls


async def test_the_next_message_of_a_tenant_waits_for_a_place_and_that_of_another_does_not() -> None:
    counts = OpenCalls(1_000)
    async with AsyncExitStack() as held:
        for _ in range(15):
            await held.enter_async_context(counts.of_arriving("acme"))
        last = await AsyncExitStack().__aenter__()
        await last.enter_async_context(counts.of_arriving("acme"))
        waiting = asyncio.create_task(held.enter_async_context(counts.of_arriving("acme")))
        async with counts.of_arriving("other"):
            await asyncio.sleep(0.01)
        assert not waiting.done()
        await last.aclose()
        await waiting


async def test_a_tenant_whose_messages_all_stand_still_is_refused_one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camserve_server.core.open_calls._PLACE_WITHIN_S", 0.01)
    counts = OpenCalls(1_000)
    async with AsyncExitStack() as held:
        for _ in range(16):
            await held.enter_async_context(counts.of_arriving("acme"))
        with pytest.raises(ApiError) as refused:
            await held.enter_async_context(counts.of_arriving("acme"))
    assert refused.value.reason is Reason.CONCURRENCY_EXCEEDED
    async with counts.of_arriving("acme"):
        pass


async def test_late_messages_of_a_crowd_make_room_for_a_tenant_that_has_none() -> None:
    counts = OpenCalls(1_000)
    with ExitStack() as held:
        crowd = [held.enter_context(counts.of_late(f"crowd-{number % 4}")) for number in range(64)]
        own = held.enter_context(counts.of_late("acme"))
        assert sum(room.done() for room in crowd) == 1
        assert crowd[60].done()
        assert not own.done()
        with pytest.raises(ApiError) as refused:
            held.enter_context(counts.of_late("crowd-1"))
        assert refused.value.reason is Reason.SERVICE_OVERLOADED
    with counts.of_late("crowd-1") as room:
        assert not room.done()
