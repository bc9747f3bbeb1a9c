"""An item waits while the model keeps failing, and is not failed for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

import orjson
import pytest
from tests.clock import FakeClock

from camserve_server.base.clock import SystemClock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.ids import new_id
from camserve_server.core.infer_options import InferOptions
from camserve_server.core.infer_result import InferResult, Timings
from camserve_server.core.job_changes import JobChanges
from camserve_server.core.job_worker import JobWorker
from camserve_server.core.stored_results import encode_options
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.engine import ModelFailedError
from camserve_server.stores.durability import Disk
from camserve_server.stores.job_queue import MOST_CLAIMS, JobQueue
from camserve_server.stores.jobs import Jobs, NewItem, NewJob
from camserve_server.stores.keyring import KeyRing
from camserve_server.stores.outbox import Outbox
from camserve_server.stores.sealing import Sealer

RESULT = InferResult("shapes", "2", "1", "1", 1, 1, "image/png", "0" * 64, [], None, Timings(0, 0, 0, 0, 0, 0))
TRIES = MOST_CLAIMS + 2


class WatchedQueue(JobQueue):
    def __init__(self, *parts):
        super().__init__(*parts)
        self.finished = asyncio.get_running_loop().create_future()

    async def finish(self, tenant, outcomes, **options):
        done = await super().finish(tenant, outcomes, **options)
        self.finished.set_result([(outcome.state, outcome.claim.claims) for outcome in outcomes])
        return done


class Model:
    """Fails so often, then works."""

    def __init__(self, *, left_alone=0, fails=0):
        self.left_alone, self.fails = left_alone, fails

    def check_circuit(self, options):
        if self.left_alone:
            self.left_alone -= 1
            raise ApiError(Reason.CIRCUIT_OPEN, retry_after_s=0)

    async def infer_queued(self, *_, **__):
        if self.fails:
            self.fails -= 1
            raise ModelFailedError
        return RESULT


class AwayModel(Model):
    """Is not there for a while, or answers no longer at all."""

    def __init__(self, reason, *, looks=10, retired=False):
        super().__init__()
        self.reason, self.looks, self.retired, self.tries = reason, looks, retired, 0

    def check_circuit(self, options):
        self.tries += 1
        if self.looks or self.retired:
            raise ApiError(self.reason)

    def lacks(self, model, version):
        assert (model, version) == ("shapes", "2")
        self.looks = max(0, self.looks - 1)
        return bool(self.looks) and not self.retired


class Urls:
    def __init__(self):
        self.fetched = 0

    async def open(self, *_):
        self.fetched += 1
        return SharedBuffer.create("test")


async def work(redis, tmp_path, model):
    """Submits a job of one item; returns how it ended, and after how many claims."""
    sealer = Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")
    queue, urls = WatchedQueue(redis, sealer, Outbox(redis)), Urls()
    spec = orjson.dumps({"options": encode_options(InferOptions("shapes", "2")), "url": "https://images.example/a"})
    job = NewJob(new_id("job"), "shapes", "2", 3_600_000, None, [NewItem("i", spec)])
    await Jobs(redis, sealer, Disk(), Outbox(redis)).submit("a", job)
    worker = JobWorker(
        queue, model, None, SystemClock(), width=8, lease_s=600, urls=urls, warm=None, budget=None, changes=JobChanges()
    )
    worker.start()
    ended = await queue.finished
    await worker.stop(1)
    return ended, urls.fetched


@pytest.mark.parametrize("model", [Model(left_alone=TRIES), Model(fails=TRIES)], ids=["left-alone", "failing"])
async def test_an_item_is_not_failed_for_a_model_that_fails_on_everything(redis, tmp_path, model):
    fetches = model.fails + 1
    # Nothing is fetched for a model that is left alone.
    assert await work(redis, tmp_path, model) == ([("s", 1)], fetches)
    assert (model.left_alone, model.fails) == (0, 0)


@pytest.mark.parametrize("reason", [Reason.MODEL_UNAVAILABLE, Reason.MODEL_NOT_FOUND, Reason.MODEL_VERSION_NOT_FOUND])
async def test_an_item_of_a_model_that_is_not_here_is_left_until_it_is(redis, tmp_path, reason):
    model = AwayModel(reason)
    assert await work(redis, tmp_path, model) == ([("s", 1)], 1)
    assert model.tries == 2


async def test_an_item_of_a_version_that_was_retired_fails_with_that(redis, tmp_path):
    model = AwayModel(Reason.MODEL_VERSION_NOT_FOUND, retired=True)
    assert await work(redis, tmp_path, model) == ([("f", 1)], 0)


class HangingUrls:
    """Every origin but one hangs."""

    def __init__(self):
        self.waiting: Counter[str] = Counter()

    async def open(self, tenant, url):
        if tenant == "victim":
            return SharedBuffer.create("test")
        self.waiting[tenant] += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting[tenant] -= 1


@dataclass
class Crowd:
    """A worker of width 8 whose tenants' images hang."""

    jobs: Jobs
    queue: WatchedQueue
    urls: HangingUrls
    changes: JobChanges

    async def submit(self, tenant, count):
        spec = orjson.dumps({"options": encode_options(InferOptions("shapes", "2")), "url": "https://images.example/a"})
        job_id = new_id("job")
        items = [NewItem(str(number), spec) for number in range(count)]
        await self.jobs.submit(tenant, NewJob(job_id, "shapes", "2", 3_600_000, None, items))
        return job_id

    async def until_waiting(self, tenant, count):
        while self.urls.waiting[tenant] != count:
            await asyncio.sleep(0.01)


@pytest.fixture
async def crowd(redis, tmp_path):
    sealer = Sealer(KeyRing(tmp_path / "state.json", clock=FakeClock()), "any")
    crowd = Crowd(
        Jobs(redis, sealer, Disk(), Outbox(redis)),
        WatchedQueue(redis, sealer, Outbox(redis)),
        HangingUrls(),
        JobChanges(),
    )
    worker = JobWorker(
        crowd.queue,
        Model(),
        None,
        SystemClock(),
        width=8,
        lease_s=600,
        urls=crowd.urls,
        warm=None,
        budget=None,
        changes=crowd.changes,
    )
    worker.start()
    yield crowd
    await worker.stop(0)


async def test_images_of_many_tenants_that_hang_leave_another_its_place(crowd):
    for number in range(80):
        await crowd.submit(f"hanging{number}", 20)
    for number in range(80):
        while not crowd.urls.waiting[f"hanging{number}"]:
            await asyncio.sleep(0.01)
    assert max(crowd.urls.waiting.values()) == 8
    await crowd.submit("victim", 1)
    assert await crowd.queue.finished == [("s", 1)]


async def test_who_cancels_and_begins_anew_has_no_more_than_its_share(crowd):
    for _ in range(10):
        job_id = await crowd.submit("looping", 8)
        await crowd.until_waiting("looping", 8)
        # Longer than the worker goes without a look.
        await asyncio.sleep(0.15)
        # On another replica: this one hears of it when it renews its leases.
        await crowd.jobs.cancel("looping", job_id)
    await crowd.submit("victim", 1)
    assert await crowd.queue.finished == [("s", 1)]
    assert crowd.urls.waiting["looping"] == 8


async def test_a_canceled_job_ends_at_once_where_it_was_canceled(crowd):
    first = await crowd.submit("any", 8)
    await crowd.until_waiting("any", 8)
    await crowd.jobs.cancel("any", first)
    crowd.changes.canceled(first)
    await crowd.until_waiting("any", 0)
    await crowd.submit("any", 3)
    await crowd.until_waiting("any", 3)
