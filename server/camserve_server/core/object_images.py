"""Stored images, brought back into memory."""

from __future__ import annotations

import asyncio

from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.stores.objects import ObjectStore


async def load(objects: ObjectStore, tenant: str, object_id: str, budget: ByteBudget) -> SharedBuffer:
    """Returns the object in shared memory.

    Raises ApiError: OBJECT_NOT_FOUND, UPSTREAM_FAILED, SERVICE_OVERLOADED when the budget is exhausted.
    """
    buffer = SharedBuffer.create("object", budget)
    try:
        async with await objects.open(tenant, object_id) as stored:
            async for chunk in stored.read(0, stored.size_bytes):
                await asyncio.to_thread(buffer.append, chunk)
    except BaseException:
        buffer.close()
        raise
    return buffer
