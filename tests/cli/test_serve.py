"""A replica that is to stop while it starts stops."""

from __future__ import annotations

import asyncio

import pytest

from camserve_server.cli.serve import came_to_its_end


async def test_a_start_that_is_not_over_is_broken_off_when_the_program_is_to_stop() -> None:
    stopping, began, broken_off = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def start() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            broken_off.set()

    running = asyncio.create_task(came_to_its_end(start(), stopping))
    await began.wait()
    stopping.set()
    assert not await running
    assert broken_off.is_set()


async def test_a_start_that_comes_to_its_end_says_so_or_fails() -> None:
    async def failing() -> None:
        raise OSError("a port is taken")

    assert await came_to_its_end(asyncio.sleep(0), asyncio.Event())
    with pytest.raises(OSError, match="a port is taken"):
        await came_to_its_end(failing(), asyncio.Event())
