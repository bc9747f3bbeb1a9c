"""The outbox: events on their way to endpoints, each sent until it is answered or given up.

An endpoint is a webhook, by its id, or a place that jobs name as their callback, by digests of its origin and of all of
it. Events come into the outbox in the step that ends their job; see lua/outbox.lua.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from redis.asyncio import Redis

from camserve_server.stores import keys
from camserve_server.stores.outbox_mend import OutboxMender
from camserve_server.stores.redis import text, unavailable_on_error
from camserve_server.stores.scripts import SERVER_CLOCK_MS, Script

Status = Literal["pending", "delivered", "dead"]
Verdict = Literal["delivered", "again", "untried", "dead", "gone"]

CALLBACK, ORIGIN_DIGITS = "cb_", 16
_ORIGIN_LETTERS = len(CALLBACK) + ORIGIN_DIGITS

# While one courier deals with an endpoint the others take other ones. What finds no room at its origin comes again the
# later the more there are of it, but before it counts as overlooked.
_PUT_OFF_MS, _CROWDED_EACH_MS, _CROWDED_MOST_MS = 2_000, 3, 30_000

_ANNOUNCE = Script("outbox_announce", after=["clock", "outbox_ring"])
_NEXT = Script("outbox_next", after=["clock", "outbox_ring"])
_SETTLE = Script("outbox_settle", after=["clock", "outbox_ring"])
_CLAIM = Script("outbox_claim", after=["clock", "outbox"])
_FINISH = Script("outbox_finish", after=["clock", "outbox"])
_SEND = Script("outbox_send", after=["clock", "outbox"])


@dataclass(frozen=True, slots=True)
class Attempt:
    """An event under a lease, to be sent now; `number` counts attempts from 1, `came_ms` is unix time.

    `trace` is the W3C context in which its job was submitted, empty where there was none.
    """

    tenant: str
    endpoint: str
    event_id: str
    event: str
    job_id: str
    number: int
    fence: int
    came_ms: int
    trace: str


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """What became of an event at an endpoint; times are unix time in milliseconds."""

    event_id: str
    event: str
    job_id: str
    status: Status
    attempts: int
    last_status: int | None
    next_ms: int | None


class Outbox:
    """The outboxes of all tenants. Every method raises ApiError(STORE_UNAVAILABLE) when Redis does not answer.

    Like the queue of jobs it takes two steps: the ring says which endpoint is due, tenants taking turns, and the
    tenant's part, which may lie in another slot of a cluster, leases its events. `now_ms` is Redis's own clock unless a
    caller gives another.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._mender = OutboxMender(redis)
        self.on_announce: Callable[[], None] = lambda: None
        """Is called when events came, so that a courier of this process need not wait to look."""

    async def announce(self, tenant: str, told: Iterable[Any]) -> None:
        """Says in the ring that these endpoints have something new; after a crash before it the janitor does."""
        endpoints = [text(endpoint) for endpoint in told]
        if endpoints:
            await self._announce([(_member(tenant, endpoint), 0) for endpoint in endpoints])
            self.on_announce()

    async def take(
        self,
        count: int,
        *,
        lease_ms: int,
        full: Collection[str] = (),
        crowded: Collection[tuple[str, str]] = (),
        left_alone: Collection[Hashable] = (),
        now_ms: int = SERVER_CLOCK_MS,
    ) -> list[Attempt] | None:
        """Leases up to `count` events of the endpoint that is longest due of the tenant whose turn it is.

        None while none is, of tenants that are not `full`. The list is empty where an endpoint has as many events under
        way as it gets at once, and where it is put off: those of `crowded`, which are pairs of origin and tenant, and
        those `left_alone`, pairs of endpoint and tenant.
        """
        with unavailable_on_error():
            no_room = [*full, *(f"{origin} {tenant}" for origin, tenant in crowded)]
            offs = [_PUT_OFF_MS, _CROWDED_EACH_MS, _CROWDED_MOST_MS]
            reply = await _NEXT.run(self._redis, [keys.ring()], [now_ms, *offs, _ORIGIN_LETTERS, len(full), *no_room])
            if reply is None:
                return None
            member, version = text(reply[0]), reply[1] or b""
            if not member:
                return []
            endpoint, tenant = member.split(" ", 1)
            if (endpoint, tenant) in left_alone:
                return []
            rows, look_ms = await _CLAIM.run(self._redis, [keys.tenant(tenant)], [now_ms, endpoint, count, lease_ms])
            await _SETTLE.run(self._redis, [keys.ring()], [now_ms, member, version, look_ms])
        return [
            Attempt(tenant, endpoint, text(event_id), text(event), text(job_id), number, fence, came_ms, text(trace))
            for event_id, event, job_id, number, fence, came_ms, trace in rows
        ]

    async def finish(
        self,
        attempt: Attempt,
        verdict: Verdict,
        *,
        answered: int | None = None,
        pause_ms: int = 0,
        now_ms: int = SERVER_CLOCK_MS,
    ) -> bool:
        """Records an attempt; False when its lease is no longer the caller's.

        `again` makes the event due after `pause_ms`, and so does `untried`, which gives the attempt back; `gone` also
        disables the webhook, so that what waits for it is given up; `delivered` enables it again.
        """
        args: list[str | bytes | int] = [now_ms, attempt.endpoint, attempt.event_id, attempt.fence, verdict]
        args += ["" if answered is None else answered, pause_ms]
        with unavailable_on_error():
            recorded, look_ms = await _FINISH.run(self._redis, [keys.tenant(attempt.tenant)], args)
        if look_ms:
            await self._announce([(_member(attempt.tenant, attempt.endpoint), look_ms)], now_ms=now_ms)
            self.on_announce()
        return bool(recorded)

    async def send(
        self,
        tenant: str,
        webhook_id: str,
        event_id: str,
        *,
        event: str = "",
        job_id: str = "",
        now_ms: int = SERVER_CLOCK_MS,
    ) -> bool:
        """Sends an event to a webhook: a new one, or one that it had, again; False when it has neither.

        A new event of an id that the webhook had is that one, and is not sent again.
        """
        args: list[str | bytes | int] = [now_ms, webhook_id, event_id, event, job_id]
        with unavailable_on_error():
            sent, told = await _SEND.run(self._redis, [keys.tenant(tenant)], args)
        await self.announce(tenant, told)
        return bool(sent)

    async def delivery(self, tenant: str, endpoint: str, event_id: str) -> DeliveryRecord | None:
        """Returns what became of an event at an endpoint."""
        with unavailable_on_error():
            fields: Any = await self._redis.hgetall(keys.delivery(tenant, endpoint, event_id))
        return _record(event_id, fields)

    async def page(
        self, tenant: str, endpoint: str, *, before: tuple[int, str] | None, count: int
    ) -> list[tuple[tuple[int, str], DeliveryRecord | None]]:
        """Returns up to `count` deliveries, the newest first, each with its position; None for one that is over.

        `before` is the position of the last one already seen.
        """
        rows: list[tuple[int, str]] = []
        offset = 0
        with unavailable_on_error():
            while len(rows) < count:
                found: list[Any] = await self._redis.zrange(
                    keys.deliveries(tenant, endpoint),
                    before[0] if before else "+inf",
                    "-inf",
                    desc=True,
                    byscore=True,
                    offset=offset,
                    num=count,
                    withscores=True,
                )
                offset += len(found)
                positions = ((int(row[1]), text(row[0])) for row in found)
                rows += [position for position in positions if before is None or position < before]
                if len(found) < count:
                    break
            rows = rows[:count]
            pipe = self._redis.pipeline(transaction=False)
            for _, event_id in rows:
                pipe.hgetall(keys.delivery(tenant, endpoint, event_id))
            fields = await pipe.execute()
        return [(position, _record(position[1], each)) for position, each in zip(rows, fields, strict=True)]

    async def mend(self) -> int:
        """Announces endpoints whose place in the ring is missing, or later than their events; returns how many.

        A crash or a lost reply between the end of a job and the announcement leaves such endpoints. One call looks at a
        part of them where there are many, and the next one goes on.
        """
        mended = await self._mender.round()
        if mended:
            self.on_announce()
        return mended

    async def _announce(self, entries: Iterable[tuple[str, int]], *, now_ms: int = SERVER_CLOCK_MS) -> None:
        """Makes members due at a time in ms, 0 for now."""
        args = [now_ms, *(part for entry in entries for part in entry)]
        with unavailable_on_error():
            await _ANNOUNCE.run(self._redis, [keys.ring()], args)


def origin_of(endpoint: str) -> str:
    """Returns what places that jobs call back have in common when they fail together; a webhook is on its own."""
    return endpoint[:_ORIGIN_LETTERS] if endpoint.startswith(CALLBACK) else endpoint


def _member(tenant: str, endpoint: str) -> str:
    return f"{endpoint} {tenant}"


def _record(event_id: str, fields: dict[bytes, bytes]) -> DeliveryRecord | None:
    if b"event" not in fields:
        return None
    status: Status = text(fields[b"status"])  # type: ignore[assignment]
    return DeliveryRecord(
        event_id=event_id,
        event=text(fields[b"event"]),
        job_id=text(fields[b"job"]),
        status=status,
        attempts=int(fields[b"attempts"]),
        last_status=int(fields[b"last_status"]) if b"last_status" in fields else None,
        next_ms=int(fields[b"next_ms"]) if b"next_ms" in fields else None,
    )
