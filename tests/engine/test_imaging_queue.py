"""Who waits for an imaging worker, in which order, and who no longer does."""

from __future__ import annotations

import asyncio
import dataclasses

from tests.engine.images import pillow, scene, shared
from tests.engine.pools import REQUEST, SETTINGS, reason, running, until

from camserve_server.base.errors import Reason


async def test_full_queue_refuses_at_once() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, queue_limit=1)) as pool:
        running_call = asyncio.create_task(pool.fault("hang"))
        await until(lambda: pool.stats().busy == 1)
        waiting = asyncio.create_task(pool.fault("hang"))
        await until(lambda: pool.stats().queued == 1)
        assert await reason(pool.fault("hang")) == Reason.SERVICE_OVERLOADED
        running_call.cancel()
        waiting.cancel()
        await asyncio.gather(running_call, waiting, return_exceptions=True)


async def test_in_the_background_tenants_take_turns_behind_all_others() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, queue_limit=1)) as pool:
        order: list[str | None] = []

        async def decode(tenant: str | None) -> None:
            (await pool.decode(image, REQUEST, share=tenant or "", background=tenant is not None)).close()
            order.append(tenant)

        with shared(pillow(scene(), "PNG")) as image:
            # The first one runs at once; the queue's limit binds nobody in the background.
            await asyncio.gather(*(decode(tenant) for tenant in ("a", "a", "a", "a", "b", "b", None)))
        assert order == ["a", None, "a", "b", "a", "b", "a"]


async def test_a_background_caller_that_leaves_is_passed_over() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            running_call = asyncio.create_task(pool.fault("hang"))
            await until(lambda: pool.stats().busy == 1)
            leaving, staying = (
                asyncio.create_task(pool.decode(image, REQUEST, share=tenant, background=True)) for tenant in ("a", "b")
            )
            await until(lambda: pool.stats().queued == 2)
            leaving.cancel()
            await until(lambda: pool.stats().queued == 1)
            running_call.cancel()
            (await staying).close()
            await asyncio.gather(running_call, leaving, return_exceptions=True)


async def test_a_wait_is_estimated_from_the_calls_before() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            (await pool.decode(image, REQUEST)).close()
            assert pool.wait_s() == 0
            running_call, waiting = (asyncio.create_task(pool.fault("hang")) for _ in range(2))
            await until(lambda: pool.stats().queued == 1)
            assert pool.wait_s() > 0
            running_call.cancel()
            waiting.cancel()
            await asyncio.gather(running_call, waiting, return_exceptions=True)


async def test_caller_that_leaves_the_queue_frees_its_place() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, queue_limit=1)) as pool:
        first = asyncio.create_task(pool.fault("hang"))
        await until(lambda: pool.stats().busy == 1)
        second = asyncio.create_task(pool.fault("hang"))
        await until(lambda: pool.stats().queued == 1)
        second.cancel()
        await asyncio.wait([second])
        assert pool.stats().queued == 0
        with shared(pillow(scene(), "PNG")) as image:
            third = asyncio.create_task(pool.decode(image, REQUEST))
            await until(lambda: pool.stats().queued == 1)
            first.cancel()
            (await third).close()


async def test_cancelled_call_frees_its_worker() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, deadline_s=1000.0)) as pool:
        call = asyncio.create_task(pool.fault("hang"))
        await until(lambda: pool.stats().busy == 1)
        call.cancel()
        await asyncio.wait([call])
        assert call.cancelled()
        with shared(pillow(scene(), "PNG")) as image:
            (await pool.decode(image, REQUEST)).close()


async def test_models_take_turns_so_that_a_flood_for_one_does_not_delay_another() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        order: list[str] = []

        async def decode(share: str) -> None:
            (await pool.decode(image, REQUEST, share=share)).close()
            order.append(share)

        with shared(pillow(scene(), "PNG")) as image:
            await asyncio.gather(*(decode(share) for share in "aaaaaab"))
        assert order.index("b") <= 2


async def test_in_a_full_queue_the_share_of_which_most_wait_is_refused() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1, queue_limit=3)) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            busy = asyncio.create_task(pool.fault("hang"))
            await until(lambda: pool.stats().busy == 1)
            flood = [asyncio.create_task(pool.decode(image, REQUEST, share="slow")) for _ in range(3)]
            await until(lambda: pool.stats().queued == 3)
            assert await reason(pool.decode(image, REQUEST, share="slow")) == Reason.SERVICE_OVERLOADED
            other = asyncio.create_task(pool.decode(image, REQUEST, share="quick"))
            assert await reason(flood.pop()) == Reason.SERVICE_OVERLOADED
            another = asyncio.create_task(pool.decode(image, REQUEST, share="quick"))
            # Two of one and one of the other: the next one of either is refused.
            assert await reason(another) == Reason.SERVICE_OVERLOADED
            busy.cancel()
            for call in (*flood, other):
                (await call).close()
            await asyncio.gather(busy, return_exceptions=True)


async def test_the_wait_of_one_share_does_not_count_the_flood_of_another() -> None:
    async with running(dataclasses.replace(SETTINGS, workers=1)) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            (await pool.decode(image, REQUEST)).close()
            busy = asyncio.create_task(pool.fault("hang"))
            await until(lambda: pool.stats().busy == 1)
            flood = [asyncio.create_task(pool.decode(image, REQUEST, share="slow")) for _ in range(9)]
            await until(lambda: pool.stats().queued == 9)
            assert pool.wait_s("slow") / pool.wait_s("quick") == 9
            for call in (busy, *flood):
                call.cancel()
            await asyncio.gather(busy, *flood, return_exceptions=True)


async def test_a_share_whose_pictures_take_long_leaves_a_worker_to_others() -> None:
    async with running(dataclasses.replace(SETTINGS, deadline_s=1.5)) as pool:
        with shared(pillow(scene(), "PNG")) as image:
            (await pool.decode(image, REQUEST, share="quick")).close()
            # Who is slow shows when the first ones have been at work for a while.
            assert [await reason(pool.fault("hang", share="slow")) for _ in range(1)] == [Reason.IMAGE_REJECTED]
            await until(lambda: pool.stats().alive == 2)
            hung = [asyncio.create_task(pool.fault("hang", share="slow")) for _ in range(4)]
            await until(lambda: pool.stats().queued == 3)
            (await pool.decode(image, REQUEST, share="quick")).close()
            assert not any(call.done() for call in hung)
            for call in hung:
                call.cancel()
            await asyncio.gather(*hung, return_exceptions=True)
