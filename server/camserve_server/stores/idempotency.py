"""Idempotency keys: who holds one, and the answer that its first call got."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import Enum

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.redis import unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script
from camserve_server.stores.sealing import Sealer

KEPT_MS = 24 * 3600 * 1000

_BEGIN = Script("idempotency_begin", after=["clock"])
_FINISH = Script("idempotency_finish")
_RENEW = Script("idempotency_renew", after=["clock"])
_RELEASE = Script("idempotency_release")


class Standing(Enum):
    """Why a call may not run under its key."""

    RUNNING = b"running"
    REUSED = b"reused"


@dataclass(frozen=True, slots=True)
class Hold:
    """What one call says to have a key: who it is, and the nonce that it brings."""

    place: str
    holder: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A key is in the hands of the call; `nonce` is the same for every attempt at the request, `first` is this one."""

    nonce: str
    first: bool


class IdempotencyKeys:
    """The keys of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    `now_ms` is Redis's own clock unless a caller gives another, as tests do.
    """

    def __init__(self, redis: Redis, sealer: Sealer, disk: Disk) -> None:
        self._redis = redis
        self._sealer = sealer
        self._disk = disk

    def hold(self, tenant: str, operation: str, key: str) -> Hold:
        """Returns what a new call says to have a key; nothing is sent."""
        place = keys.idempotency(tenant, operation, hashlib.sha256(key.encode()).hexdigest())
        return Hold(place, secrets.token_hex(16), secrets.token_hex(16))

    async def begin(
        self, hold: Hold, fingerprint: bytes, *, lease_ms: int, now_ms: int = SERVER_CLOCK_MS
    ) -> Taken | bytes | Standing:
        """Takes a key for a call, or returns the answer that it has already, or why the call may not run.

        A key whose holder went silent for the lease is free again. What is returned is on the disk. Where this fails
        the key may be taken all the same, until it is released.
        """
        pipe = self._redis.pipeline(transaction=False)
        args: list[int | str | bytes] = [now_ms, fingerprint, hold.holder, hold.nonce, lease_ms, KEPT_MS]
        pipe.eval(_BEGIN.source, 1, hold.place, *args)
        state, *rest = (await self._disk.execute(pipe))[0]
        if state == b"taken":
            nonce = rest[0].decode()
            return Taken(nonce, first=nonce == hold.nonce)
        return self._sealer.open(rest[0], hold.place) if state == b"answered" else Standing(state)

    async def finish(self, hold: Hold, answer: bytes) -> bool:
        """Keeps an answer for 24 h; False when the key is no longer the caller's."""
        with unavailable_on_error():
            sealed = self._sealer.seal(answer, hold.place)
            return bool(await _FINISH.run(self._redis, [hold.place], [hold.holder, sealed, KEPT_MS]))

    async def renew(self, hold: Hold, *, lease_ms: int, now_ms: int = SERVER_CLOCK_MS) -> bool:
        """Prolongs the lease; False when the key is no longer the caller's."""
        with unavailable_on_error():
            return bool(await _RENEW.run(self._redis, [hold.place], [now_ms, hold.holder, lease_ms]))

    async def release(self, hold: Hold, *, forget: bool) -> None:
        """Frees the key; unless `forget`, the same request will go on with the same nonce."""
        with unavailable_on_error():
            await _RELEASE.run(self._redis, [hold.place], [hold.holder, int(forget)])
