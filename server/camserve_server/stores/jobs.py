"""Jobs: their records, their items and their end. The queue that works on them is job_queue."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from redis.asyncio import Redis

from camserve_server.base.errors import ApiError
from camserve_server.stores import keys
from camserve_server.stores.durability import Disk
from camserve_server.stores.outbox import CALLBACK, ORIGIN_DIGITS, Outbox
from camserve_server.stores.pressure import Pressure, ask_ring, ask_tenant, told
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script
from camserve_server.stores.sealing import Sealer
from camserve_server.stores.tenant_walk import TenantWalk

Status = Literal["queued", "running", "succeeded", "failed", "canceled", "expired"]
FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "canceled", "expired"})
ITEM_STATES: dict[str, Status] = {"q": "queued", "r": "running", "s": "succeeded", "f": "failed"}
# An ended job is listed this long after its results are gone.
RECORD_KEPT_MS = 7 * 24 * 3600 * 1000
# Tenants whose place one call mends, about.
_MOST_MENDED = 500

_SUBMIT = Script("job_submit", after=["clock", "outbox", "jobs"])
_CANCEL = Script("job_cancel", after=["clock", "outbox", "jobs"])
_EXPIRE = Script("job_expire", after=["clock", "outbox", "jobs"])
_RING_ADD = Script("ring_add")


@dataclass(frozen=True, slots=True)
class NewItem:
    """One item of a new job: the caller's id, and what a worker needs to know."""

    id: str
    spec: bytes


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a caller keeps with a job: as JSON, which events carry, and packed as readers give it back.

    A job that a server of before accepted has only the JSON.
    """

    json: bytes
    packed: bytes = b""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to accept; `trace` is the W3C context in which it was submitted."""

    job_id: str
    model: str
    model_version: str
    ttl_ms: int
    metadata: Metadata | None
    items: Sequence[NewItem]
    callback_url: str | None = None
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Submitted:
    """Whether it is this call's job that was accepted, and what its last item waits behind."""

    accepted: bool
    pressure: Pressure


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is; times are unix time in milliseconds, `removed` says that its items are gone.

    `error` is the result of the first item of a job that failed.
    """

    job_id: str
    status: Status
    submitted_ms: int
    started_ms: int | None
    completed_ms: int | None
    expires_ms: int
    model: str
    model_version: str
    items: int
    succeeded: int
    failed: int
    metadata: Metadata | None
    error: bytes | None
    removed: bool


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """One item of a job; `result` is there once it has ended, empty for an item that no worker survived."""

    index: int
    id: str
    status: Status
    result: bytes | None


class Jobs:
    """The jobs of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    `now_ms` is Redis's own clock unless a caller gives another, as tests do.
    """

    def __init__(self, redis: Redis, sealer: Sealer, disk: Disk, outbox: Outbox) -> None:
        self._redis = redis
        self._sealer = sealer
        self._disk = disk
        self._outbox = outbox
        self._walk = TenantWalk(redis)

    async def submit(self, tenant: str, job: NewJob, *, now_ms: int = SERVER_CLOCK_MS) -> Submitted:
        """Accepts a job; a second one of the same id changes nothing. Once this returns the job is on the disk."""
        spec_place = spec_at(tenant, job.job_id)
        items = [part for item in job.items for part in (item.id, self._sealer.seal(item.spec, spec_place))]
        callback = (b"", b"")
        if job.callback_url:
            url = job.callback_url.encode()
            callback = (_endpoint(url), self._sealer.seal(url, _callback_at(tenant, job.job_id)))
        args: list[int | str | bytes] = [
            now_ms,
            job.job_id,
            job.ttl_ms,
            job.model,
            job.model_version,
            job.metadata.json if job.metadata else b"",
        ]
        args += [*callback, secrets.token_hex(8), job.trace]
        args += [job.metadata.packed if job.metadata else b"", *items]
        look_ms = (now_ms or int(time.time() * 1000)) + job.ttl_ms
        # In this order a crash between two of them leaves at most a name without a job, or a job without a
        # place in the ring, which the janitor gives it.
        pipe = self._redis.pipeline(transaction=False)
        pipe.sadd(keys.known_tenants(), tenant)
        pipe.zadd(keys.job_expiries(), {f"{job.job_id} {tenant}": look_ms})
        pipe.eval(_SUBMIT.source, 1, keys.tenant(tenant), *args)
        ask_tenant(pipe, tenant)
        pipe.eval(_RING_ADD.source, 1, keys.ring(), tenant)
        ask_ring(pipe)
        _, _, accepted, waiting, leased, _, *ring = await self._disk.execute(pipe)
        return Submitted(bool(accepted), told(waiting, leased, *ring))

    async def get(self, tenant: str, job_id: str) -> JobRecord | None:
        """Returns a job, or None when the tenant has none of that id."""
        with unavailable_on_error():
            fields: Any = await self._redis.hgetall(keys.job(tenant, job_id))
        return self._record(tenant, job_id, fields)

    async def callback_url(self, tenant: str, job_id: str) -> str | None:
        """Returns where the end of a job is told."""
        with unavailable_on_error():
            sealed: Any = await self._redis.hget(keys.job(tenant, job_id), "callback")
        return self._sealer.open(sealed, _callback_at(tenant, job_id)).decode() if sealed else None

    async def page(
        self, tenant: str, *, before: tuple[int, str] | None, oldest_ms: int, newest_ms: int, count: int
    ) -> list[JobRecord]:
        """Returns up to `count` jobs submitted in [oldest_ms, newest_ms], the newest first, after `before`.

        `before` is (submitted_ms, job_id) of the last job already seen.
        """
        job_ids: list[str] = []
        highest, offset = newest_ms, 0
        if before:
            highest = min(highest, before[0])
        with unavailable_on_error():
            while len(job_ids) < count:
                rows: list[Any] = await self._redis.zrange(
                    keys.jobs(tenant),
                    highest,
                    oldest_ms,
                    desc=True,
                    byscore=True,
                    offset=offset,
                    num=count,
                    withscores=True,
                )
                offset += len(rows)
                job_ids += [text(row[0]) for row in rows if before is None or (int(row[1]), text(row[0])) < before]
                if len(rows) < count:
                    break
            pipe = self._redis.pipeline(transaction=False)
            for job_id in job_ids[:count]:
                pipe.hgetall(keys.job(tenant, job_id))
            found = await pipe.execute()
        records = (self._record(tenant, job_id, fields) for job_id, fields in zip(job_ids, found, strict=False))
        return [record for record in records if record]

    async def items(self, tenant: str, job: JobRecord, indices: Iterable[int]) -> list[ItemRecord]:
        """Returns items of a job that has not been removed."""
        wanted = list(indices)
        fields = [f"{letter}:{index}" for index in wanted for letter in "dsr"]
        if not fields:
            return []
        with unavailable_on_error():
            values: list[Any] = await self._redis.hmget(keys.job_items(tenant, job.job_id), fields)
        place = result_at(tenant, job.job_id)
        return [
            ItemRecord(
                index,
                text(values[3 * at] or b""),
                _item_status(values[3 * at + 1], job.status),
                self._sealer.open(values[3 * at + 2], place) if values[3 * at + 2] else values[3 * at + 2],
            )
            for at, index in enumerate(wanted)
        ]

    async def finished(self, tenant: str, job_id: str, start: int) -> list[int]:
        """Returns the indices of the items that ended, in that order, leaving out the first `start`."""
        with unavailable_on_error():
            rows = await self._redis.lrange(keys.job_done(tenant, job_id), start, -1)
        return [int(row) for row in rows]

    async def cancel(
        self, tenant: str, job_id: str, *, now_ms: int = SERVER_CLOCK_MS
    ) -> tuple[Status, list[bytes]] | None:
        """Ends a job as canceled unless it has ended; returns its status before and the specs dropped.

        None when the tenant has no such job.
        """
        with unavailable_on_error():
            reply = await _CANCEL.run(self._redis, [keys.tenant(tenant)], [now_ms, job_id])
        if reply is None:
            return None
        await self._outbox.announce(tenant, reply[2])
        place = spec_at(tenant, job_id)
        return _status(reply[0]), [self._sealer.open(spec, place) for spec in reply[1]]

    async def expire_due(self, *, now_ms: int, limit: int = 100) -> int:
        """Ends jobs whose time is over, removes their items and later their records; returns how many were due."""
        with unavailable_on_error():
            due: list[Any] = await self._redis.zrange(keys.job_expiries(), 0, now_ms, byscore=True, offset=0, num=limit)
            for member in due:
                job_id, tenant = text(member).split(" ", 1)
                again_ms = await self.expire(tenant, job_id, now_ms=now_ms)
                if again_ms:
                    await self._redis.zadd(keys.job_expiries(), {member: again_ms})
                else:
                    await self._redis.zrem(keys.job_expiries(), member)
        return len(due)

    async def expire(self, tenant: str, job_id: str, *, now_ms: int = SERVER_CLOCK_MS) -> int:
        """Ends a job if its time is over, and removes its items, later its record.

        Returns when there is more to do, in ms of unix time, 0 for never.
        """
        with unavailable_on_error():
            again_ms, told = await _EXPIRE.run(self._redis, [keys.tenant(tenant)], [now_ms, job_id, RECORD_KEPT_MS])
        await self._outbox.announce(tenant, told)
        return int(again_ms)

    async def mend_ring(self) -> int:
        """Gives tenants that have work but no place in the ring theirs; returns how many there were.

        A crash between accepting a job and joining the ring leaves such tenants. One call looks at a part of them where
        there are many, and the next one goes on.
        """
        looked = mended = 0
        walk_over = False
        while looked < _MOST_MENDED and not walk_over:
            tenants, walk_over = await self._walk.page()
            mended += await self._mend_ring(tenants)
            looked += len(tenants)
        return mended

    async def _mend_ring(self, tenants: list[str]) -> int:
        with unavailable_on_error():
            turns: list[Any] = await self._redis.zmscore(keys.ring_turns(), tenants) if tenants else []
            without = [tenant for tenant, turn in zip(tenants, turns, strict=True) if turn is None]
            pipe = self._redis.pipeline(transaction=False)
            for tenant in without:
                pipe.llen(keys.job_queue(tenant))
                pipe.zcard(keys.job_leases(tenant))
            counts = await pipe.execute()
            lost = [tenant for at, tenant in enumerate(without) if counts[2 * at] or counts[2 * at + 1]]
            if lost:
                await _RING_ADD.run(self._redis, [keys.ring()], lost)
        return len(lost)

    def _record(self, tenant: str, job_id: str, fields: dict[bytes, bytes]) -> JobRecord | None:
        if b"status" not in fields:
            return None

        def milliseconds(name: bytes) -> int | None:
            return int(fields[name]) if name in fields else None

        said = b"metadata" in fields
        return JobRecord(
            job_id=job_id,
            status=_status(fields[b"status"]),
            submitted_ms=int(fields[b"submitted_ms"]),
            started_ms=milliseconds(b"started_ms"),
            completed_ms=milliseconds(b"completed_ms"),
            expires_ms=int(fields[b"expires_ms"]),
            model=text(fields[b"model"]),
            model_version=text(fields[b"model_version"]),
            items=int(fields[b"items"]),
            succeeded=int(fields[b"succeeded"]),
            failed=int(fields[b"failed"]),
            metadata=Metadata(fields[b"metadata"], fields.get(b"metadata_packed", b"")) if said else None,
            error=self._error(tenant, job_id, fields.get(b"error")),
            removed=b"removed" in fields,
        )

    def _error(self, tenant: str, job_id: str, sealed: bytes | None) -> bytes | None:
        if not sealed:
            return sealed
        try:
            return self._sealer.open(sealed, result_at(tenant, job_id))
        except ApiError:
            # Its key is gone. A listing does not fail for one such job.
            return None


def spec_at(tenant: str, job_id: str) -> str:
    """The place for which the specs of a job are sealed."""
    return f"{keys.job_items(tenant, job_id)} spec"


def result_at(tenant: str, job_id: str) -> str:
    """The place for which the results of a job are sealed."""
    return f"{keys.job_items(tenant, job_id)} result"


def _callback_at(tenant: str, job_id: str) -> str:
    return f"{keys.job(tenant, job_id)} callback"


def _endpoint(url: bytes) -> bytes:
    """Names a place that jobs call back; all jobs that name it share its outbox.

    The names of all places of an origin begin alike, see `Outbox`.
    """
    parts = urlsplit(url.decode())
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    origin = hashlib.sha256(f"{parts.scheme}://{host}:{port}".encode()).hexdigest()
    return CALLBACK.encode() + f"{origin[:ORIGIN_DIGITS]}{hashlib.sha256(url).hexdigest()[:32]}".encode()


def _status(value: bytes) -> Status:
    status: Status = text(value)  # type: ignore[assignment]
    return status


def _item_status(letter: bytes, job: Status) -> Status:
    status = ITEM_STATES[text(letter)]
    # Of a job that ended otherwise, what has no outcome of its own shares the job's.
    return job if status in ("queued", "running") and job in FINAL else status
