"""The courier: sends events to their endpoints until they are answered or given up."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import orjson
import structlog

from camserve_server.base import tracing
from camserve_server.base.breaker import Breakers
from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended, wound_up
from camserve_server.base.telemetry import WEBHOOK_ATTEMPTS, WEBHOOK_LAG_SECONDS
from camserve_server.core.webhook_signing import signed_headers
from camserve_server.core.webhooks import TEST_EVENT, WebhookService
from camserve_server.outbound.client import FetchError, GuardedClient, Reply, UntriedError
from camserve_server.outbound.targets import NotAllowedError
from camserve_server.stores.jobs import Jobs
from camserve_server.stores.outbox import CALLBACK, Attempt, Outbox, Verdict, origin_of
from camserve_server.stores.webhooks import Webhooks

_log = structlog.get_logger("courier")

P = TypeVar("P")

MOST_ATTEMPTS = 8
TIMEOUT_S = 10.0
# Longer than an attempt can take, with what is read before it and recorded after it.
_LEASE_MS = 30_000
# Events leased to a courier that stops are waited for: canceled, they would be nobody's until the lease is over.
_LAST_TAKE_S = 3.0
_AT_ONCE = 256
# However many endpoints a tenant names: those that do not answer take its own places only, and half of them where they
# are one origin's.
_AT_ONCE_TENANT = 32
_AT_ONCE_ORIGIN = 16
_LOOK_INTERVAL_S = 0.5
_STORE_PAUSE_S = 1.0
# An event whose endpoint's name got no place among its tenant's slow ones.
_UNTRIED_PAUSE_S = 2.0
_GROWTH, _JITTER = 4, 0.2
_LONGEST_PAUSE_S = 24 * 3600.0
_GONE = 410


class Courier:
    """Sends what is due, a few events per endpoint at a time; `prefix` begins every link.

    An endpoint that keeps failing is passed over for a while: its events keep their attempts and take up no place.

    The pauses between attempts are `pause_s` and four times as long each time, give or take a fifth.
    """

    def __init__(
        self,
        outbox: Outbox,
        webhooks: Webhooks,
        service: WebhookService,
        jobs: Jobs,
        client: GuardedClient,
        clock: Clock,
        *,
        prefix: str,
        pause_s: float,
    ) -> None:
        self._outbox = outbox
        self._webhooks = webhooks
        self._service = service
        self._jobs = jobs
        self._client = client
        self._clock = clock
        self._prefix = prefix
        self._pause_s = pause_s
        self._running: dict[asyncio.Task[None], Attempt] = {}
        # Never longer than the first pause of an event, so that the schedule of events stays theirs.
        self._breakers = Breakers(
            "webhooks", monotonic=clock.monotonic, failures=3, pause_s=min(1.0, pause_s), longest_s=pause_s
        )
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        """Begins to look for events."""
        self._outbox.on_announce = self._wake.set
        self._loop = asyncio.create_task(self._take())

    async def stop(self, within_s: float) -> None:
        """Takes no more and finishes what is under way within the time."""
        if self._loop is None:
            return
        self._stopping = True
        self._wake.set()
        await wound_up(self._loop, _LAST_TAKE_S)
        if self._running:
            await asyncio.wait(self._running, timeout=within_s)
        # What an attempt did not record comes again when its lease is over.
        await ended(self._running)

    async def _take(self) -> None:
        while not self._stopping:
            attempts = None
            self._wake.clear()
            try:
                if len(self._running) < _AT_ONCE:
                    attempts = await self._outbox.take(
                        _AT_ONCE - len(self._running),
                        lease_ms=_LEASE_MS,
                        full=self._full(_tenant_of, _AT_ONCE_TENANT),
                        crowded=self._full(_origin_of, _AT_ONCE_ORIGIN),
                        left_alone=self._breakers.left_alone(),
                    )
            except ApiError as error:
                _log.warning("the courier cannot reach the outbox", code=error.reason)
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            for attempt in attempts or ():
                task = asyncio.create_task(self._send_traced(attempt))
                self._running[task] = attempt
                task.add_done_callback(self._done)
            if attempts is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_INTERVAL_S):
                        await self._wake.wait()

    def _full(self, part_of: Callable[[Attempt], P], most: int) -> list[P]:
        """Returns the tenants, or their origins, that have as many events under way as one may have."""
        counts = Counter(map(part_of, self._running.values()))
        return [part for part, count in counts.items() if count >= most]

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._wake.set()

    async def _send_traced(self, attempt: Attempt) -> None:
        about = {"camserve.event_id": attempt.event_id, "camserve.job_id": attempt.job_id}
        about |= {"camserve.event": attempt.event, "camserve.endpoint": attempt.endpoint}
        with tracing.continued("webhook delivery", attempt.trace, about, calls=True):
            await self._send(attempt)

    async def _send(self, attempt: Attempt) -> None:
        try:
            target = await self._target(attempt)
            body = await self._body(attempt) if target else None
            if target is None or body is None:
                await self._record(attempt, "dead")
                return
            url, secrets = target
            timestamp = int(self._clock.now())
            headers = {"content-type": "application/json"}
            headers |= signed_headers(secrets, attempt.event_id, timestamp, body)
            if context := tracing.traceparent():
                headers["traceparent"] = context
            # It joins, since its endpoint was asked after before it was taken: an attempt that counts is made.
            turn = self._breakers[attempt.endpoint, attempt.tenant].join()
            try:
                reply = await self._client.post(url, body, headers, timeout_s=TIMEOUT_S, tenant=attempt.tenant)
                turn.failed() if reply.status >= 500 else turn.succeeded()
            except UntriedError:
                await self._record(attempt, "untried", pause_s=_UNTRIED_PAUSE_S)
                return
            except (FetchError, NotAllowedError):
                reply = None
                turn.failed()
            finally:
                turn.left()
            await self._judge(attempt, reply)
        except ApiError as error:
            # The lease runs out, and the event comes again.
            _log.warning("an attempt could not be made or recorded", code=error.reason, event_id=attempt.event_id)
        except Exception:
            _log.exception("an attempt failed", event_id=attempt.event_id)
            with contextlib.suppress(ApiError):
                await self._judge(attempt, None)

    async def _target(self, attempt: Attempt) -> tuple[str, list[bytes]] | None:
        """Returns where an event goes and what signs it, the newest secret first; None when the place is gone."""
        if attempt.endpoint.startswith(CALLBACK):
            url = await self._jobs.callback_url(attempt.tenant, attempt.job_id)
            return (url, [await self._service.callback_secret(attempt.tenant)]) if url else None
        webhook = await self._webhooks.get(attempt.tenant, attempt.endpoint)
        if webhook is None:
            return None
        now_ms = self._clock.now() * 1000
        return webhook.url, [webhook.secret, *(secret for secret, until_ms in webhook.before if until_ms > now_ms)]

    async def _body(self, attempt: Attempt) -> bytes | None:
        """Returns what an event says, None when its job is gone."""
        said: dict[str, Any] = {"event": attempt.event, "job_id": attempt.job_id, "status": "succeeded"}
        counts, metadata = (1, 0), b"{}"
        if attempt.event != TEST_EVENT:
            job = await self._jobs.get(attempt.tenant, attempt.job_id)
            if job is None:
                return None
            # Not the job's own: one that has succeeded may have expired since.
            said["status"] = attempt.event.removeprefix("job.")
            counts, metadata = (job.succeeded, job.failed), job.metadata.json if job.metadata else b"{}"
        results_url = f"{self._prefix}/v1/jobs/{attempt.job_id}/results"
        return orjson.dumps(
            said
            | {
                "items_succeeded": counts[0],
                "items_failed": counts[1],
                "results_url": results_url,
                "link_to_results": results_url,
                "metadata": orjson.Fragment(metadata),
            }
        )

    async def _judge(self, attempt: Attempt, reply: Reply | None) -> None:
        answered = reply.status if reply else None
        if answered is not None and 200 <= answered < 300:
            await self._record(attempt, "delivered", answered)
        elif answered == _GONE:
            await self._record(attempt, "gone", answered)
        elif attempt.number >= MOST_ATTEMPTS:
            await self._record(attempt, "dead", answered)
        else:
            await self._record(attempt, "again", answered, pause_s=self._pause(attempt.number, reply))

    def _pause(self, number: int, reply: Reply | None) -> float:
        pause_s: float = self._pause_s * _GROWTH ** (number - 1) * random.uniform(1 - _JITTER, 1 + _JITTER)
        if reply and reply.status in (429, 503) and reply.retry_after:
            pause_s = max(pause_s, _seconds(reply.retry_after, self._clock.now()))
        return min(pause_s, _LONGEST_PAUSE_S)

    async def _record(
        self, attempt: Attempt, verdict: Verdict, answered: int | None = None, *, pause_s: float = 0.0
    ) -> None:
        WEBHOOK_ATTEMPTS.labels(verdict).inc()
        about: dict[str, tracing.Value] = {"camserve.verdict": verdict, "camserve.attempt": attempt.number}
        tracing.note(about | ({"http.response.status_code": answered} if answered else {}))
        if verdict == "delivered":
            WEBHOOK_LAG_SECONDS.observe(max(0.0, self._clock.now() - attempt.came_ms / 1000))
        await self._outbox.finish(attempt, verdict, answered=answered, pause_ms=round(pause_s * 1000))


def _tenant_of(attempt: Attempt) -> str:
    return attempt.tenant


def _origin_of(attempt: Attempt) -> tuple[str, str]:
    return origin_of(attempt.endpoint), attempt.tenant


def _seconds(retry_after: str, now: float) -> float:
    """Returns the pause that a header asks for, in seconds or until a date (RFC 9110 section 10.2.3); else 0."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
