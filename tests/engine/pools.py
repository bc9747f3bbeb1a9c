"""Pools of imaging workers for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.imaging import DecodeRequest, ImagingPool, ImagingSettings, InputSpec

SETTINGS = ImagingSettings(workers=2, worker_memory_bytes=512 << 20)
REQUEST = DecodeRequest(InputSpec(32, 24, "squash"))


@asynccontextmanager
async def running(settings: ImagingSettings, **options: Any) -> AsyncIterator[ImagingPool]:
    pool = ImagingPool(settings, fault_injection=True, **options)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def until(condition: Any) -> None:
    """Let the loop run until something holds; the test's time limit ends a hopeless wait."""
    while not condition():
        await asyncio.sleep(0.002)


async def reason(awaitable: Any) -> Reason:
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.reason
