"""Requests that run once, however often they are sent: the rules of idempotency keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import IDEMPOTENT_CALLS
from camserve_server.stores.idempotency import KEPT_MS, Hold, IdempotencyKeys, Standing
from camserve_server.stores.objects import ObjectStore, read_whole

# Above this an answer goes into the object store, so that pictures in answers do not fill the memory of Redis.
_IN_STORE_BYTES = 32 * 1024
_OBJECT_SLACK_S = 3600.0
_RELEASE_PAUSE_S = 1.0
_FREE_WITHIN_S = 0.5
# More calls than that which failed with the store do not wait for it: their keys are free when the lease ends.
_MOST_RELEASES = 256
_HERE, _OBJECT = b"\x00", b"\x01"


class Idempotency:
    """Runs requests under keys. A holder that dies frees its key after `lease_s`."""

    def __init__(self, keys: IdempotencyKeys, objects: ObjectStore, clock: Clock, *, lease_s: float = 30.0) -> None:
        self._keys = keys
        self._objects = objects
        self._clock = clock
        self._lease_s = lease_s
        self._releases: set[asyncio.Task[None]] = set()

    async def run(
        self,
        tenant: str,
        operation: str,
        key: str,
        fingerprint: bytes,
        execute: Callable[[str], Awaitable[bytes]],
    ) -> tuple[bytes, bool]:
        """Returns the answer, and whether it is that of an earlier call.

        `execute` gets a nonce that is the same whenever this request is tried again, and returns the answer to keep;
        what it raises is not kept. Raises ApiError: IDEMPOTENCY_IN_PROGRESS, IDEMPOTENCY_KEY_REUSED,
        STORE_UNAVAILABLE, UPSTREAM_FAILED.
        """
        hold = self._keys.hold(tenant, operation, key)
        try:
            begun = await self._keys.begin(hold, fingerprint, lease_ms=self._lease_ms)
        except BaseException:
            # The key may be taken although nobody was told.
            self._release(hold, forget=False)
            raise
        if isinstance(begun, Standing):
            IDEMPOTENT_CALLS.labels(begun.name.lower()).inc()
            running = begun is Standing.RUNNING
            raise ApiError(Reason.IDEMPOTENCY_IN_PROGRESS if running else Reason.IDEMPOTENCY_KEY_REUSED)
        if isinstance(begun, bytes):
            IDEMPOTENT_CALLS.labels("replayed").inc()
            return await self._load(tenant, begun), True
        IDEMPOTENT_CALLS.labels("executed").inc()
        try:
            async with self._renewed(hold):
                answer = await execute(begun.nonce)
                kept = await self._keys.finish(hold, await self._stored(tenant, answer))
        except BaseException as error:
            # A first attempt that is refused left nothing behind. Anything else may have done its work all the same.
            refused = isinstance(error, ApiError) and error.entry.status < 500
            released = self._release(hold, forget=refused and begun.first)
            if refused:
                # Who corrects the request at once finds its key free; where the store is slow, soon after.
                await asyncio.wait([released], timeout=_FREE_WITHIN_S)
            raise
        if not kept:
            # This process stood still for longer than the lease, and another one has gone on with the request.
            raise ApiError(Reason.IDEMPOTENCY_IN_PROGRESS)
        return answer, False

    async def close(self) -> None:
        """Waits a moment until keys of calls that failed are free."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=_RELEASE_PAUSE_S)
        await ended(self._releases)

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    @contextlib.asynccontextmanager
    async def _renewed(self, hold: Hold) -> AsyncIterator[None]:
        renewing = asyncio.create_task(self._renew(hold))
        try:
            yield
        finally:
            await ended([renewing])

    async def _renew(self, hold: Hold) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with contextlib.suppress(ApiError):  # the store is away: the next time it may be back
                await self._keys.renew(hold, lease_ms=self._lease_ms)

    def _release(self, hold: Hold, *, forget: bool) -> asyncio.Task[None]:
        # In a task of its own, because the call may be one that is being canceled.
        task = asyncio.create_task(self._free(hold, forget=forget))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)
        return task

    async def _free(self, hold: Hold, *, forget: bool) -> None:
        """Tries as long as the lease may last: the store may be back before."""
        over_at = self._clock.monotonic() + self._lease_s
        while self._clock.monotonic() < over_at:
            try:
                await self._keys.release(hold, forget=forget)
                return
            except ApiError:
                if len(self._releases) > _MOST_RELEASES:
                    return
                await asyncio.sleep(_RELEASE_PAUSE_S)

    async def _stored(self, tenant: str, answer: bytes) -> bytes:
        if len(answer) <= _IN_STORE_BYTES:
            return _HERE + answer
        object_id = await self._objects.put(
            tenant,
            answer,
            content_type="application/octet-stream",
            expires_at=self._clock.now() + KEPT_MS / 1000 + _OBJECT_SLACK_S,
        )
        await self._objects.sync(tenant, [object_id])
        return _OBJECT + object_id.encode()

    async def _load(self, tenant: str, stored: bytes) -> bytes:
        if stored[:1] == _HERE:
            return stored[1:]
        try:
            return await read_whole(self._objects, tenant, stored[1:].decode())
        except ApiError as error:
            raise ApiError(Reason.UPSTREAM_FAILED) from error
