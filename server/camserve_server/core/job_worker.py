"""The worker: takes items of jobs in turn, classifies them and records what came out."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import orjson
import structlog

from camserve_server.base import tracing
from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.base.tasks import ended, wound_up
from camserve_server.base.telemetry import JOB_ITEMS
from camserve_server.core.image_urls import ImageUrls
from camserve_server.core.infer import InferService
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.object_images import load
from camserve_server.core.pace import Pace
from camserve_server.core.stored_results import decode_options, encode_error, encode_result
from camserve_server.core.warm_inputs import WarmInputs
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.engine import ModelFailedError
from camserve_server.stores.job_queue import MOST_CLAIMS, Claim, JobQueue, Outcome
from camserve_server.stores.objects import ObjectStore

_log = structlog.get_logger("worker")

_LOOK_INTERVAL_S = 0.1
_STORE_PAUSE_S = 1.0
# A claim under way when the worker stops is waited for: canceled, its items would be nobody's until the lease is over.
_LAST_CLAIM_S = 3.0
# Tenants asked in a row before the worker concludes that there is nothing for it.
_MOST_TURNS = 16
_CROWDED_PAUSE_MS = 500
_MOST_AWAY = 64
# What a tenant may take of the places that are left for those who wait: the next one finds some, too.
_OF_THOSE_LEFT = 16
# Deletions of inputs at once, and how many may be due; those past that go when they expire.
_DISCARDS = 4
_MOST_SPENT = 4096
_FAULT_PAUSE_MS = 2_000
# An origin that failed may be back later; an input that is gone is a fault of ours.
_MAY_PASS = frozenset({Reason.IMAGE_FETCH_FAILED, Reason.OBJECT_NOT_FOUND})
# This replica does not have the model, which others may have.
_MODEL_IS_AWAY = frozenset({Reason.MODEL_UNAVAILABLE, Reason.MODEL_NOT_FOUND, Reason.MODEL_VERSION_NOT_FOUND})
# The service is busy or ending: the item is not to blame, and its attempt does not count.
_CROWDED = frozenset(
    {Reason.SERVICE_OVERLOADED, Reason.SERVICE_DRAINING, Reason.STORE_UNAVAILABLE, Reason.CIRCUIT_OPEN}
)


@dataclass(slots=True, eq=False)
class _Running:
    """A claimed item; `held_until` is monotonic time.

    `away` says that it waits for its image's origin, `done` that it has only to be recorded.
    """

    claim: Claim
    held_until: float
    task: asyncio.Task[None] | None = None
    lost: bool = False
    away: bool = False
    done: bool = False


class JobWorker:
    """Works on up to `width` items at a time; `lease_s` is how long an item stays ours without a sign of life.

    A tenant of which nothing is under way begins although `width` is reached, up to twice as many, so that it does not
    wait until those of others make room. Items that wait for the origin of their image or to be recorded take no place
    of another: of the former a tenant has its share, and of both all tenants together `_MOST_AWAY` times the width, of
    which nobody takes more than a part of what is left. An item of a canceled job counts until it has ended here.
    """

    def __init__(
        self,
        queue: JobQueue,
        infer: InferService,
        objects: ObjectStore,
        clock: Clock,
        *,
        width: int,
        lease_s: float,
        urls: ImageUrls,
        warm: WarmInputs,
        budget: ByteBudget,
        changes: JobChanges,
    ) -> None:
        self._queue = queue
        self._infer = infer
        self._objects = objects
        self._clock = clock
        self._width = width
        self._lease_s = lease_s
        self._urls = urls
        self._warm = warm
        self._budget = budget
        self._changes = changes
        changes.on_cancel = self._drop
        self._id = new_id("worker")
        self._pace = Pace(clock, many=max(1, width // 2))
        self._running: set[_Running] = set()
        self._left: set[tuple[str, str]] = set()
        self._outcomes: asyncio.Queue[tuple[_Running, Outcome]] = asyncio.Queue()
        self._spent: asyncio.Queue[tuple[str, str]] = asyncio.Queue(_MOST_SPENT)
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Begins to look for work."""
        loops = (self._take, self._renew, self._record, *(_DISCARDS * [self._discard]))
        self._loops = [asyncio.create_task(loop()) for loop in loops]

    def wake(self) -> None:
        """Looks for work now instead of at the next look."""
        self._wake.set()

    async def stop(self, within_s: float) -> None:
        """Takes no more, finishes what runs within the time, and hands the rest back."""
        if not self._loops:
            return
        take, *others = self._loops
        self._stopping = True
        self._wake.set()
        await wound_up(take, _LAST_CLAIM_S)
        tasks = [running.task for running in self._running if running.task]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        # What is finished by now is recorded, as long as the store takes it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(1.0, within_s)):
                await self._outcomes.join()
                await self._spent.join()
        left = list(self._running)
        await ended([running.task for running in left if running.task])
        await ended(others)
        await asyncio.gather(*(self._queue.release(running.claim) for running in left), return_exceptions=True)
        self._running.clear()

    async def _take(self) -> None:
        while not self._stopping:
            try:
                taken = await self._take_some() if self._has_room() else 0
            except ApiError as error:
                _log.warning("the worker cannot reach the queue", code=error.reason)
                await asyncio.sleep(_STORE_PAUSE_S)
                continue
            if not taken:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_INTERVAL_S):
                        await self._wake.wait()

    def _has_room(self) -> bool:
        return self._busy < 2 * self._width and len(self._running) < _MOST_AWAY * self._width

    @property
    def _busy(self) -> int:
        return sum(not (running.away or running.done) for running in self._running)

    async def _take_some(self) -> int:
        """Claims for the tenant whose turn it is, and goes on to the next while that one has nothing for us."""
        self._left = {version for version in self._left if self._infer.lacks(*version)}
        for _ in range(_MOST_TURNS):
            turn = await self._queue.next_turn(self._id, width=self._width, items_per_s=self._pace.per_s)
            if turn is None:
                return 0
            share = max(1, -(-max(turn.width, self._width) // turn.active))
            own = [running for running in self._running if running.claim.tenant == turn.tenant]
            done = sum(running.done for running in own)
            held = len(own) - done
            left = max(1, (_MOST_AWAY * self._width - len(self._running)) // _OF_THOSE_LEFT)
            room = self._width - self._busy
            asked_monotonic = self._clock.monotonic()
            claims = await self._queue.claim(
                turn,
                max(0, min(room, share - held, left)),
                lease_ms=round(self._lease_s * 1000),
                most_leases=share + done,
                newcomers=min(room if turn.active == 1 else room + self._width, self._width - held, left),
                leave=self._left,
            )
            for claim in claims:
                self._begin(claim, asked_monotonic + self._lease_s)
            if claims or turn.active == 1:
                return len(claims)
        return 0

    def _begin(self, claim: Claim, held_until: float) -> None:
        running = _Running(claim, held_until)
        self._running.add(running)
        self._pace.begin()
        running.task = asyncio.create_task(self._work(running))

    async def _work(self, running: _Running) -> None:
        try:
            claim = running.claim
            about: dict[str, tracing.Value] = {
                "camserve.job_id": claim.job_id,
                "camserve.item": claim.index,
                "camserve.claim": claim.claims,
            }
            with tracing.continued("job item", claim.trace, about):
                outcome = await self._outcome(running)
        except asyncio.CancelledError:
            if running.lost:
                self._forget(running)
            raise
        if outcome is None:
            self._forget(running)
        else:
            running.done = True
            self._pace.end(finished=True)
            self._wake.set()
            self._outcomes.put_nowait((running, outcome))

    async def _outcome(self, running: _Running) -> Outcome | None:
        """Returns what to record, None when the item was handed back."""
        claim = running.claim
        spec = orjson.loads(claim.spec)
        try:
            options = decode_options(spec["options"])
            self._infer.check_circuit(options)
            with await self._open(running, spec) as image:
                result = await self._infer.infer_queued(
                    claim.tenant, image, options, keep_until=claim.expires_ms / 1000
                )
            encoded = encode_result(result, inline=options.inline)
            return Outcome(claim, "s", encoded)
        except ApiError as error:
            if error.reason in _MODEL_IS_AWAY and self._infer.lacks(options.model, options.model_version):
                self._left.add((options.model, options.model_version))
                await self._hand_back(claim)
                return None
            if error.entry.status < 500 and error.reason not in _MAY_PASS:
                return Outcome(claim, "f", encode_error(error))
            return await self._again_or_failed(claim, error)
        except Exception:
            _log.exception("an item of a job failed", job_id=claim.job_id, index=claim.index)
            return await self._again_or_failed(claim, ApiError(Reason.INTERNAL))

    async def _again_or_failed(self, claim: Claim, error: ApiError) -> Outcome | None:
        blameless = error.reason in _CROWDED or isinstance(error, ModelFailedError)
        if not blameless and claim.claims >= MOST_CLAIMS:
            return Outcome(claim, "f", encode_error(error))
        delay_ms = _CROWDED_PAUSE_MS if blameless else _FAULT_PAUSE_MS * claim.claims
        if error.reason is Reason.CIRCUIT_OPEN and error.retry_after_s is not None:
            delay_ms = 1000 * error.retry_after_s
        await self._hand_back(claim, delay_ms=delay_ms, counts=not blameless)
        return None

    async def _hand_back(self, claim: Claim, *, delay_ms: int = 0, counts: bool = False) -> None:
        # Where the store cannot be reached the lease runs out, which comes to the same.
        with contextlib.suppress(ApiError):
            await self._queue.release(claim, delay_ms=delay_ms, counts=counts)

    async def _open(self, running: _Running, spec: dict[str, str]) -> SharedBuffer:
        tenant = running.claim.tenant
        if "url" in spec:
            running.away = True
            self._pace.end(finished=False)
            self._wake.set()
            try:
                return await self._urls.open(tenant, spec["url"])
            finally:
                running.away = False
                self._pace.begin()
        if image := self._warm.take(spec["object_id"]):
            return image
        return await load(self._objects, tenant, spec["object_id"], self._budget)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            for tenant, held in self._by_tenant(self._running).items():
                asked_monotonic = self._clock.monotonic()
                try:
                    kept = await self._queue.renew(
                        tenant, [running.claim for running in held], lease_ms=round(self._lease_s * 1000)
                    )
                except ApiError:
                    kept = [running.held_until > self._clock.monotonic() for running in held]
                else:
                    for running in held:
                        running.held_until = asked_monotonic + self._lease_s
                for running, ours in zip(held, kept, strict=True):
                    if not ours:
                        # Canceled, expired, or another worker's by now: whatever comes out would be refused.
                        self._lose(running)

    def _drop(self, job_id: str) -> None:
        """Ends the items of a canceled job."""
        for running in self._running:
            if running.claim.job_id == job_id:
                self._lose(running)

    def _lose(self, running: _Running) -> None:
        if running.task and not running.lost:
            running.lost = True
            running.task.cancel()

    async def _record(self) -> None:
        """Records outcomes, all that came while the last ones were recorded in one step per tenant."""
        while True:
            waiting = [await self._outcomes.get()]
            while not self._outcomes.empty():
                waiting.append(self._outcomes.get_nowait())
            by_tenant: defaultdict[str, list[tuple[_Running, Outcome]]] = defaultdict(list)
            for entry in waiting:
                by_tenant[entry[1].claim.tenant].append(entry)
            await asyncio.gather(*(self._record_for(tenant, entries) for tenant, entries in by_tenant.items()))
            for _ in waiting:
                self._outcomes.task_done()

    async def _record_for(self, tenant: str, entries: list[tuple[_Running, Outcome]]) -> None:
        while True:
            try:
                recorded = await self._queue.finish(tenant, [outcome for _, outcome in entries])
                break
            except ApiError as error:
                _log.warning("outcomes cannot be recorded yet", code=error.reason, items=len(entries))
                await asyncio.sleep(_STORE_PAUSE_S)
        for job_id in {outcome.claim.job_id for _, outcome in entries}:
            self._changes.tell(job_id)
        for (running, outcome), done in zip(entries, recorded, strict=True):
            self._forget(running)
            JOB_ITEMS.labels({"s": "succeeded", "f": "failed"}[outcome.state] if done else "lost").inc()
            if done:
                spec = orjson.loads(running.claim.spec)
                if "object_id" in spec and "shared" not in spec:
                    with contextlib.suppress(asyncio.QueueFull):
                        self._spent.put_nowait((tenant, spec["object_id"]))

    async def _discard(self) -> None:
        """Deletes inputs that are no longer needed; where that fails they go when they expire."""
        while True:
            tenant, object_id = await self._spent.get()
            try:
                await self._objects.delete(tenant, object_id)
            except ApiError:
                pass
            except Exception:
                _log.exception("the input of an item could not be deleted")
            finally:
                self._spent.task_done()

    def _forget(self, running: _Running) -> None:
        self._running.discard(running)
        if not running.done:
            self._pace.end(finished=False)
        self._wake.set()

    def _by_tenant(self, entries: Iterable[_Running]) -> dict[str, list[_Running]]:
        grouped: defaultdict[str, list[_Running]] = defaultdict(list)
        for running in entries:
            grouped[running.claim.tenant].append(running)
        return grouped
