"""Images that are fetched from the URLs that callers name."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.limits import Limits
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.outbound.client import FetchError, GuardedClient, TooLargeError
from camserve_server.outbound.targets import NotAllowedError

# A tenant whose origins are slow fills its own places only.
_AT_ONCE = 8


@dataclass(slots=True)
class _Places:
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    users: int = 0


class ImageUrls:
    """Fetches images of up to their tenant's limit, a few at a time for each tenant, each within `timeout_s`."""

    def __init__(self, client: GuardedClient, limits: Limits, *, timeout_s: float, budget: ByteBudget) -> None:
        self._client = client
        self._limits = limits
        self._timeout_s = timeout_s
        self._budget = budget
        self._places: dict[str, _Places] = {}

    def check(self, url: str) -> None:
        """Raises ApiError(IMAGE_URL_NOT_ALLOWED) for a URL that is never fetched; nothing is sent."""
        try:
            self._client.check(url)
        except NotAllowedError:
            raise ApiError(Reason.IMAGE_URL_NOT_ALLOWED) from None

    async def open(self, tenant: str, url: str) -> SharedBuffer:
        """Returns the image in shared memory.

        Raises ApiError: IMAGE_URL_NOT_ALLOWED, UPLOAD_TOO_LARGE, SERVICE_OVERLOADED when the budget is exhausted,
        and IMAGE_FETCH_FAILED for everything else alike.
        """
        self.check(url)
        limit_bytes = (await self._limits.of(tenant)).max_image_bytes
        buffer = SharedBuffer.create("url", self._budget, tenant)

        async def keep(chunk: bytes) -> None:
            await asyncio.to_thread(buffer.append, chunk)

        try:
            async with self._place(tenant):
                await self._client.fetch(url, keep, limit_bytes=limit_bytes, timeout_s=self._timeout_s, tenant=tenant)
            if not buffer.size:
                raise FetchError
        except TooLargeError as error:
            buffer.close()
            raise ApiError(
                Reason.UPLOAD_TOO_LARGE,
                limit_mb=round(limit_bytes / 1e6, 3),
                actual_mb=error.size_bytes / 1e6,
            ) from None
        except (FetchError, NotAllowedError):
            buffer.close()
            raise ApiError(Reason.IMAGE_FETCH_FAILED) from None
        except BaseException:
            buffer.close()
            raise
        return buffer

    @contextlib.asynccontextmanager
    async def _place(self, tenant: str) -> AsyncIterator[None]:
        places = self._places.setdefault(tenant, _Places())
        places.users += 1
        try:
            async with places.free:
                yield
        finally:
            places.users -= 1
            if not places.users:
                del self._places[tenant]
