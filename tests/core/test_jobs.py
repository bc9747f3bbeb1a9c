"""What callers see of a job whose time is over before the janitor has come."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.clock import FakeClock
from tests.stores.test_jobs import claim, finish

from camserve_server.base.clock import SystemClock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.core import jobs as jobs_module
from camserve_server.core.cursors import Cursors
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.jobs import JobFilter, JobService
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import JobQueue
from camserve_server.stores.jobs import Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer

TTL_MS = 3000


@pytest.fixture
def sealer(tmp_path):
    return Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "job")


async def test_get_list_results_and_cancel_agree_that_a_job_is_over(redis, sealer):
    jobs = Jobs(redis, sealer, Disk(), Outbox(redis))
    service = JobService(jobs, None, None, Cursors(sealer), SystemClock(), JobChanges())
    late, done = new_id("job"), new_id("job")
    for job_id in (done, late):
        await jobs.submit("a", NewJob(job_id, "shapes", "2", TTL_MS, None, [NewItem("x", b"spec")]))
    queue = JobQueue(redis, sealer, Outbox(redis))
    now_ms = int(time.time() * 1000)
    await finish(queue, await claim(queue, 1, at=now_ms), at=now_ms)
    assert (await service.get("a", done)).status == "succeeded"
    await asyncio.sleep(TTL_MS / 1000)
    first = await service.get("a", late)
    assert (first.status, first.removed) == ("expired", True)
    page, _ = await service.page("a", JobFilter(status="expired"), cursor="", limit=10)
    assert page == [first]
    with pytest.raises(ApiError) as refused:
        await service.cancel("a", late)
    assert refused.value.reason is Reason.JOB_ALREADY_COMPLETED
    assert await service.get("a", late) == first
    over = await service.get("a", done)
    assert (over.status, over.removed) == ("succeeded", True)
    assert await service.item("a", over, 0) is None
    with pytest.raises(ApiError) as gone:
        await service.results("a", done, cursor="", limit=10)
    assert gone.value.reason is Reason.JOB_RESULTS_EXPIRED


async def test_who_watches_a_job_hears_at_once_of_what_its_replica_did(redis, sealer, monkeypatch):
    # Looking now and then would take longer than the test waits.
    monkeypatch.setattr(jobs_module, "_FIRST_LOOK_S", 60)
    jobs, changes = Jobs(redis, sealer, Disk(), Outbox(redis)), JobChanges()
    service = JobService(jobs, None, None, Cursors(sealer), SystemClock(), changes)
    job_id = new_id("job")
    await jobs.submit("a", NewJob(job_id, "shapes", "2", 60_000, None, [NewItem("x", b"{}")]))
    watched = service.watch("a", job_id)
    async with asyncio.timeout(10):
        assert (await anext(watched)).job.status == "queued"
        waiting = asyncio.create_task(anext(watched))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await service.cancel("a", job_id)
        assert [(await waiting).job.status, (await anext(watched, None))] == ["canceled", None]


async def test_who_watches_a_job_is_told_that_its_replica_stops_unless_the_job_has_ended(redis, sealer):
    jobs, changes = Jobs(redis, sealer, Disk(), Outbox(redis)), JobChanges()
    service = JobService(jobs, None, None, Cursors(sealer), SystemClock(), changes)
    going, ended = new_id("job"), new_id("job")
    for job_id in (going, ended):
        await jobs.submit("a", NewJob(job_id, "shapes", "2", 60_000, None, [NewItem("x", b"{}")]))
    async with asyncio.timeout(10):
        watched = service.watch("a", going)
        assert (await anext(watched)).job.status == "queued"
        waiting = asyncio.create_task(anext(watched))
        await asyncio.sleep(0.1)
        await jobs.cancel("a", ended)
        changes.close()
        with pytest.raises(ApiError) as stopping:
            await waiting
        assert stopping.value.reason is Reason.SERVICE_DRAINING
        late = service.watch("a", ended)
        assert [(await anext(late)).job.status, (await anext(late)).last] == ["canceled", True]
