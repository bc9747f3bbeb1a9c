"""Stored images, brought back into memory."""

from __future__ import annotations

import asyncio

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.stores.objects import ObjectStore


async def load(objects: ObjectStore, tenant: str, object_id: str, budget: ByteBudget) -> SharedBuffer:
    """Returns the object in shared memory.

    Raises ApiError: OBJECT_NOT_FOUND, UPSTREAM_FAILED, UPLOAD_TOO_LARGE when it would never fit into the budget,
    SERVICE_OVERLOADED when that is exhausted.
    """
    buffer = SharedBuffer.create("object", budget, tenant)
    try:
        async with await objects.open(tenant, object_id) as stored:
            if stored.size_bytes > budget.most_bytes:
                # It was stored when the memory was larger: to come again would not help.
                raise ApiError(
                    Reason.UPLOAD_TOO_LARGE, limit_mb=budget.most_bytes / 1e6, actual_mb=stored.size_bytes / 1e6
                )
            # Before any byte: images that are half here would keep each other from becoming whole.
            buffer.reserve(stored.size_bytes)
            async for chunk in stored.read(0, stored.size_bytes):
                await asyncio.to_thread(buffer.append, chunk)
    except BaseException:
        buffer.close()
        raise
    return buffer
