"""The queue of jobs' items: fair between tenants, one holder per item at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.jobs import result_at, spec_at
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script
from camserve_server.stores.sealing import Sealer

Args = list[str | bytes | int]

MOST_CLAIMS = 3
# A worker that did not look for work this long no longer counts.
WORKER_SILENT_MS = 30_000

_CLAIM = Script("job_claim", after=["clock", "outbox", "jobs"])
_FINISH = Script("job_finish", after=["clock", "outbox", "jobs"])
_RENEW = Script("job_renew", after=["clock", "outbox", "jobs"])
_RELEASE = Script("job_release", after=["clock", "outbox", "jobs"])
_RING_NEXT = Script("ring_next", after=["clock"])
_RING_REMOVE = Script("ring_remove")


@dataclass(frozen=True, slots=True)
class Turn:
    """A tenant's turn: how many tenants have work, and how many items all workers take at once."""

    tenant: str
    version: bytes
    active: int
    width: int


@dataclass(frozen=True, slots=True)
class Claim:
    """An item under a lease; `claims` counts this one, `expires_ms` is when its job's time is over.

    `trace` is the W3C context in which its job was submitted, empty where there was none.
    """

    tenant: str
    job_id: str
    index: int
    fence: int
    claims: int
    spec: bytes
    expires_ms: int
    trace: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an item ended, to be recorded."""

    claim: Claim
    state: Literal["s", "f"]
    result: bytes


class JobQueue:
    """Items in turn. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    Taking an item is two steps, either of which may be repeated or lost without harm: the ring says whose turn
    it is, and that tenant's part, which may lie in another slot of a cluster, leases the items.
    """

    def __init__(self, redis: Redis, sealer: Sealer, outbox: Outbox) -> None:
        self._redis = redis
        self._sealer = sealer
        self._outbox = outbox

    async def next_turn(
        self, worker: str, *, width: int, items_per_s: float, now_ms: int = SERVER_CLOCK_MS
    ) -> Turn | None:
        """Returns whose turn it is, None while nobody has work, and notes that this worker is there."""
        args: Args = [now_ms, worker, width, int(items_per_s * 1000), WORKER_SILENT_MS]
        with unavailable_on_error():
            reply = await _RING_NEXT.run(self._redis, [keys.ring()], args)
        return None if reply is None else Turn(text(reply[0]), reply[1] or b"", reply[2], reply[3])

    async def claim(
        self,
        turn: Turn,
        count: int,
        *,
        lease_ms: int,
        most_leases: int,
        newcomers: int = 0,
        leave: Iterable[tuple[str, str]] = (),
        now_ms: int = SERVER_CLOCK_MS,
    ) -> list[Claim]:
        """Leases up to `count` items of the tenant, which holds at most `most_leases`; if it holds none, `newcomers`.

        Items of the models and versions in `leave` stay for other workers, in their places.
        A tenant that has no work left leaves the ring. An item whose third lease ran out is failed here.
        """
        tenant = turn.tenant
        args: Args = [now_ms, count, lease_ms, most_leases, MOST_CLAIMS, b"", newcomers]
        args += [f"{model} {version}" for model, version in leave]
        with unavailable_on_error():
            rows, waiting, leased, told = await _CLAIM.run(self._redis, [keys.tenant(tenant)], args)
            if not waiting and not leased:
                await _RING_REMOVE.run(self._redis, [keys.ring()], [tenant, turn.version])
        await self._outbox.announce(tenant, told)
        return [
            Claim(
                tenant,
                text(job_id),
                index,
                fence,
                claims,
                self._sealer.open(spec, spec_at(tenant, text(job_id))),
                expires_ms,
                text(trace),
            )
            for job_id, index, fence, claims, spec, expires_ms, trace in rows
        ]

    async def finish(self, tenant: str, outcomes: Sequence[Outcome], *, now_ms: int = SERVER_CLOCK_MS) -> list[bool]:
        """Records outcomes of one tenant; False for an item whose lease is no longer the caller's."""
        args: Args = [now_ms]
        for outcome in outcomes:
            claim = outcome.claim
            sealed = self._sealer.seal(outcome.result, result_at(tenant, claim.job_id))
            args += [claim.job_id, claim.index, claim.fence, outcome.state, sealed]
        with unavailable_on_error():
            answers, told = await _FINISH.run(self._redis, [keys.tenant(tenant)], args)
        await self._outbox.announce(tenant, told)
        return [bool(answer) for answer in answers]

    async def renew(
        self, tenant: str, claims: Sequence[Claim], *, lease_ms: int, now_ms: int = SERVER_CLOCK_MS
    ) -> list[bool]:
        """Prolongs leases of one tenant; False for those that are no longer the caller's."""
        args: Args = [now_ms, lease_ms]
        for claim in claims:
            args += [claim.job_id, claim.index, claim.fence]
        with unavailable_on_error():
            return [bool(reply) for reply in await _RENEW.run(self._redis, [keys.tenant(tenant)], args)]

    async def release(
        self, claim: Claim, *, delay_ms: int = 0, counts: bool = False, now_ms: int = SERVER_CLOCK_MS
    ) -> bool:
        """Hands an item back, to be claimed after `delay_ms`; `counts` when this claim counts as an attempt."""
        args: Args = [now_ms, claim.job_id, claim.index, claim.fence, delay_ms, int(counts)]
        with unavailable_on_error():
            return bool(await _RELEASE.run(self._redis, [keys.tenant(claim.tenant)], args))
