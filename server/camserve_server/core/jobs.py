"""Jobs once they are accepted: told about, followed, canceled."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import orjson
import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.cursors import Cursors
from camserve_server.core.infer_result import BatchOutcome
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.links import Links
from camserve_server.core.stored_results import decode_outcome
from camserve_server.stores.jobs import FINAL, ItemRecord, JobRecord, Jobs, Status
from camserve_server.stores.objects import ObjectStore, discard

_log = structlog.get_logger("jobs")

PAGE_LIMIT_BYTES = 3 * 1024 * 1024
# After so much of a page others get to run.
MUCH_BYTES = 4096
LATEST_MS = 1 << 52
_JOB_ID = re.compile(r"job_[0-9A-Za-z]{16,40}")
# Of a listing with filters, jobs looked at for one page.
_MOST_LOOKED_AT = 2_000
_SHORTEST_LOOK_S, _FIRST_LOOK_S, _LONGEST_LOOK_S = 0.01, 0.05, 1.0

Item = tuple[ItemRecord, BatchOutcome | None]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are listed; times are unix milliseconds, `created_before_ms` exclusive."""

    status: str = ""
    model: str = ""
    created_after_ms: int = 0
    created_before_ms: int = LATEST_MS


@dataclass(frozen=True, slots=True)
class JobChange:
    """One event of a job that is watched: the job when its state changed, or an item that ended; `last` ends it."""

    job: JobRecord
    item: Item | None = None
    last: bool = False


class JobService:
    """Tells of a tenant's jobs, and cancels them."""

    def __init__(
        self,
        jobs: Jobs,
        objects: ObjectStore,
        links: Links,
        cursors: Cursors,
        clock: Clock,
        changes: JobChanges,
    ) -> None:
        self._jobs = jobs
        self._objects = objects
        self._links = links
        self._cursors = cursors
        self._clock = clock
        self._changes = changes

    async def get(self, tenant: str, job_id: str) -> JobRecord:
        """Returns a job; raises ApiError(JOB_NOT_FOUND)."""
        job = await self._jobs.get(tenant, job_id) if _JOB_ID.fullmatch(job_id) else None
        job = await self._on_time(tenant, job) if job else None
        if job is None:
            raise ApiError(Reason.JOB_NOT_FOUND)
        return job

    async def page(
        self, tenant: str, chosen: JobFilter, *, cursor: str, limit: int
    ) -> tuple[list[JobRecord], str | None]:
        """Returns a page of jobs, the newest first, and the cursor of the next page.

        A page may have fewer jobs than `limit` although others follow. Raises ApiError(CURSOR_INVALID).
        """
        listing = _listing(tenant, chosen)
        before = _position(self._cursors.read(listing, cursor)) if cursor else None
        found: list[JobRecord] = []
        looked_at = 0
        while len(found) <= limit:
            count = limit + 1 if not (chosen.status or chosen.model) else 200
            rows = await self._jobs.page(
                tenant,
                before=before,
                oldest_ms=chosen.created_after_ms,
                newest_ms=chosen.created_before_ms - 1,
                count=count,
            )
            found += [job for row in rows if (job := await self._on_time(tenant, row)) and _matches(job, chosen)]
            looked_at += len(rows)
            if len(rows) < count:
                break
            before = (rows[-1].submitted_ms, rows[-1].job_id)
            if looked_at >= _MOST_LOOKED_AT and len(found) <= limit:
                return found, self._cursors.make(listing, f"{before[0]} {before[1]}")
        if len(found) <= limit:
            return found, None
        return found[:limit], self.after(tenant, chosen, found[limit - 1])

    def after(self, tenant: str, chosen: JobFilter, job: JobRecord) -> str:
        """Returns the cursor of a page that begins behind a job."""
        return self._cursors.make(_listing(tenant, chosen), f"{job.submitted_ms} {job.job_id}")

    async def results(self, tenant: str, job_id: str, *, cursor: str, limit: int) -> tuple[list[Item], str | None]:
        """Returns a page of a job's items in the order of the request, and the cursor of the next page.

        Raises ApiError: JOB_NOT_FOUND, JOB_RESULTS_EXPIRED, CURSOR_INVALID.
        """
        job = await self.get(tenant, job_id)
        if job.removed:
            raise ApiError(Reason.JOB_RESULTS_EXPIRED)
        listing = orjson.dumps([tenant, "results", job_id]).decode()
        start = int(self._cursors.read(listing, cursor)) if cursor else 0
        page: list[Item] = []
        size_bytes = 0
        for record in await self._jobs.items(tenant, job, range(start, min(start + limit, job.items))):
            outcome, item_bytes = await self._outcome(tenant, record)
            if page and size_bytes + item_bytes > PAGE_LIMIT_BYTES:
                break
            size_bytes += item_bytes
            page.append((record, outcome))
            if item_bytes > MUCH_BYTES:
                await asyncio.sleep(0)
        end = start + len(page)
        return page, self._cursors.make(listing, str(end)) if end < job.items else None

    async def item(self, tenant: str, job: JobRecord, index: int) -> Item | None:
        """Returns one item, None when it is gone."""
        if job.removed:
            return None
        record = (await self._jobs.items(tenant, job, [index]))[0]
        outcome, _ = await self._outcome(tenant, record)
        return record, outcome

    async def watch(self, tenant: str, job_id: str) -> AsyncGenerator[JobChange]:
        """Yields the job, then each item as it ends and the job whenever its state changes, and last the ended job.

        Raises ApiError: JOB_NOT_FOUND, STORE_UNAVAILABLE; SERVICE_DRAINING when this replica stops: another one
        goes on.
        """
        status: Status | None = None
        seen = 0
        look_s = _FIRST_LOOK_S
        with self._changes.watching(job_id) as changed:
            while True:
                changed.clear()
                job = await self.get(tenant, job_id)
                if status is None or (job.status != status and job.status not in FINAL):
                    yield JobChange(job)
                ended = [] if job.removed else await self._jobs.finished(tenant, job_id, seen)
                for index in ended:
                    with contextlib.suppress(IndexError):
                        yield JobChange(job, await self.item(tenant, job, index))
                seen += len(ended)
                # The list was read after the state: of a job that has ended it is complete.
                if job.status in FINAL:
                    yield JobChange(job, last=True)
                    return
                if self._changes.closed:
                    raise ApiError(Reason.SERVICE_DRAINING)
                moved = bool(ended) or job.status != status
                look_s = _FIRST_LOOK_S if moved else min(2 * look_s, _LONGEST_LOOK_S)
                status = job.status
                await asyncio.sleep(_SHORTEST_LOOK_S)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(look_s - _SHORTEST_LOOK_S):
                        await changed.wait()

    async def cancel(self, tenant: str, job_id: str) -> JobRecord:
        """Cancels a job and returns it; a second time too. Raises ApiError: JOB_NOT_FOUND, JOB_ALREADY_COMPLETED."""
        await self.get(tenant, job_id)
        done = await self._jobs.cancel(tenant, job_id)
        if done is None:
            raise ApiError(Reason.JOB_NOT_FOUND)
        self._changes.canceled(job_id)
        before, specs = done
        if before in FINAL and before != "canceled":
            raise ApiError(Reason.JOB_ALREADY_COMPLETED, status=before)
        inputs = [orjson.loads(spec) for spec in specs]
        # What several have an item that runs may still need: it goes when it expires.
        own = [spec["object_id"] for spec in inputs if "object_id" in spec and "shared" not in spec]
        await discard(self._objects, tenant, own)
        return await self.get(tenant, job_id)

    async def _on_time(self, tenant: str, job: JobRecord) -> JobRecord | None:
        """Returns the job as it is once what its time asks for is done: the janitor may not have come yet."""
        if job.removed or job.expires_ms > self._clock.now() * 1000:
            return job
        await self._jobs.expire(tenant, job.job_id)
        return await self._jobs.get(tenant, job.job_id)

    async def _outcome(self, tenant: str, record: ItemRecord) -> tuple[BatchOutcome | None, int]:
        if record.result is None:
            return None, 0
        return await decode_outcome(record.id, record.result, tenant, self._links)


def _listing(tenant: str, chosen: JobFilter) -> str:
    return orjson.dumps(
        [tenant, "jobs", chosen.status, chosen.model, chosen.created_after_ms, chosen.created_before_ms]
    ).decode()


def _matches(job: JobRecord, chosen: JobFilter) -> bool:
    return chosen.status in ("", job.status) and chosen.model in ("", job.model)


def _position(text: str) -> tuple[int, str]:
    submitted_ms, job_id = text.split(" ", 1)
    return int(submitted_ms), job_id
