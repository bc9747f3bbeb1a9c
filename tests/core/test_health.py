"""Parts are asked once a second, however many want to know, and one that does not answer does not work."""

from __future__ import annotations

import asyncio

import pytest
from tests.clock import FakeClock

from camserve_server.core.health import Health


class Part:
    def __init__(self) -> None:
        self.asked = 0
        self.works = True
        self.held: asyncio.Event | None = None

    async def __call__(self) -> bool:
        self.asked += 1
        if self.held:
            await self.held.wait()
        return self.works


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def part() -> Part:
    return Part()


async def test_a_thousand_questions_within_a_second_reach_a_part_once(clock: FakeClock, part: Part) -> None:
    health = Health({"part": part}, clock)
    reports = await asyncio.gather(*(health.report() for _ in range(1000)))
    assert part.asked == 1
    assert all(report.healthy for report in reports)
    part.works = False
    clock.advance(0.9)
    report = await health.report()
    assert (report.healthy, report.uptime_s, part.asked) == (True, pytest.approx(0.9), 1)
    clock.advance(0.1)
    report = await health.report()
    assert (report.components, report.healthy, part.asked) == ({"part": False}, False, 2)


async def test_a_caller_who_leaves_does_not_end_the_question_of_others(clock: FakeClock, part: Part) -> None:
    part.held = asyncio.Event()
    health = Health({"part": part}, clock)
    leaves, stays = (asyncio.create_task(health.report()) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    part.held.set()
    assert (await stays).healthy
    assert part.asked == 1


async def test_a_part_that_hangs_does_not_work_and_is_waited_for_a_second(clock: FakeClock, part: Part) -> None:
    part.held = asyncio.Event()
    health = Health({"part": part, "other": Part()}, clock)
    asked_at = asyncio.get_running_loop().time()
    report = await health.report()
    # Ten times as long on a busy machine; more than that is another promise.
    assert asyncio.get_running_loop().time() - asked_at < 10
    assert report.components == {"part": False, "other": True}
    clock.advance(1)
    part.held.set()
    assert (await health.report()).healthy


async def test_closing_ends_a_question(clock: FakeClock, part: Part) -> None:
    part.held = asyncio.Event()
    health = Health({"part": part}, clock)
    asking = asyncio.create_task(health.report())
    await asyncio.sleep(0)
    await health.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
