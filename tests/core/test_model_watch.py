from __future__ import annotations

import asyncio

import pytest
from prometheus_client import REGISTRY
from tests.clock import FakeClock
from tests.core.predictions import prediction
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core import model_route_changes as changes
from camserve_server.core.model_figures import ModelFigures
from camserve_server.core.model_route_changes import RouteChanges
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.model_watch import ModelWatch
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.stores.durability import Disk
from camserve_server.stores.model_figures import FigureRecords
from camserve_server.stores.model_routes import Canary, Guard, RouteRecords, Shadow
from camserve_server.stores.redis import connect

GUARD = Guard(window_s=60, min_calls=20)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version, top in (("1", 'aliases = ["stable"]'), ("2", "")):
        write_model(folder, version=version, top=top)
    return folder


@pytest.fixture
async def engine(models_dir):
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, max_batch=2))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def clock():
    return FakeClock(1_800_000_001.0)


class Replica:
    def __init__(self, client, engine, clock):
        records = RouteRecords(client, Disk())
        self.figures = ModelFigures(clock)
        self.routes = ModelRoutes(records, engine)
        self.admin = RouteChanges(records, self.routes, engine, clock)
        self.watch = ModelWatch(self.figures, FigureRecords(client), self.routes, self.admin, clock)
        self.versions = {version.version: version for version in engine.models()}

    def call(self, version="2", *, times=1, failing=False, role="answer"):
        for _ in range(times):
            if failing:
                with pytest.raises(ApiError), self.figures.errors(self.versions[version], role):
                    raise ApiError(Reason.INTERNAL)
            else:
                self.figures.count(self.versions[version], role, prediction())

    async def begin(self, *edits):
        for edit in edits:
            await self.admin.make("tiny", edit, by="ann")

    async def turn(self):
        await self.routes.look()
        await self.watch.turn()

    @property
    def canary(self):
        return self.routes.of("tiny").routes.canary


@pytest.fixture
def replica(redis, engine, clock):
    return lambda client=redis: Replica(client, engine, clock)


CANARY = changes.canary(Canary("2", "stable", 50.0))


async def failing_canary(one, clock, *edits):
    """Begins a canary, of which one replica sees 30 calls that fail."""
    await one.begin(*(edits or (changes.guard(GUARD), CANARY)))
    clock.advance(5)
    one.call(times=30, failing=True)


async def test_a_canary_that_fails_is_rolled_back_with_the_reason(replica, clock):
    one = replica()
    made = REGISTRY.get_sample_value("camserve_model_rollbacks_total", {"model": "tiny", "limit": "error_rate"}) or 0.0
    await failing_canary(one, clock)
    await one.turn()
    assert one.canary is None
    _, (last, *_) = await one.admin.of("tiny")
    assert (last.by, last.what) == ("camserve", "end canary")
    assert last.why == "canary 2 rolled back: error rate 1 above 0.02 in 30 calls, version 1 has 0"
    metric = REGISTRY.get_sample_value("camserve_model_rollbacks_total", {"model": "tiny", "limit": "error_rate"})
    assert metric == made + 1


async def test_calls_of_all_replicas_are_judged_together_and_one_change_is_made(replica, clock):
    replicas = [replica() for _ in range(3)]
    await replicas[0].begin(changes.guard(GUARD), CANARY)
    clock.advance(5)
    for each in replicas:
        each.call(times=10, failing=True)
        await each.routes.look()
    await replicas[0].turn()
    assert replicas[0].canary
    for each in replicas[1:]:
        await each.watch._write()
    await asyncio.gather(*(each.watch.turn() for each in replicas))
    record, made = await replicas[0].admin.of("tiny")
    assert (record.revision, record.routes.canary) == (3, None)
    assert [change.by for change in made] == ["camserve", "ann", "ann"]


async def test_without_a_guard_and_without_a_canary_nothing_is_changed(replica, clock):
    one = replica()
    await failing_canary(one, clock, CANARY)
    await one.turn()
    seen = await one.watch.seen("tiny", one.routes.of("tiny"))
    # The usual limits tell, which want more calls.
    assert one.canary
    assert (seen.guard, seen.checks[0].calls, seen.checks[0].state) == (Guard(), 30, "waiting")
    await one.begin(changes.canary(None), changes.guard(GUARD), changes.shadow(Shadow("2", 100.0)))
    clock.advance(5)
    one.call(times=30, failing=True, role="shadow")
    await one.turn()
    record, _ = await one.admin.of("tiny")
    seen = await one.watch.seen("tiny", record)
    assert record.routes.shadow
    assert (seen.watched.version, seen.watched.role, seen.checks[0].state) == ("2", "shadow", "passed")


async def test_what_a_version_did_before_it_was_a_canary_does_not_count(replica, clock):
    one = replica()
    one.call(times=30, failing=True)
    await one.begin(changes.guard(GUARD), CANARY)
    one.call(times=30, failing=True)
    clock.advance(5)
    one.call(times=30)
    await one.turn()
    assert one.canary
    # One that is begun again starts anew too, and one whose percentage grows does not.
    one.call(times=30, failing=True)
    since = one.canary.since_ms
    await one.begin(changes.canary(Canary("2", "stable", 80.0)))
    assert one.canary.since_ms == since
    await one.turn()
    assert one.canary is None
    await one.begin(CANARY)
    await one.turn()
    assert one.canary.since_ms > since


async def test_figures_leave_the_window(replica, clock):
    one = replica()
    await one.begin(changes.guard(GUARD), CANARY)
    clock.advance(5)
    one.call(times=15, failing=True)
    await one.turn()
    record = one.routes.of("tiny")
    for passed, expected in ((50, 15), (10, None)):
        clock.advance(passed)
        await one.turn()
        seen = await one.watch.seen("tiny", record)
        assert seen.figures.get("2 answer", {}).get("calls") == expected
        assert len(one.watch._over["tiny"]) <= 60 / 5


async def test_while_the_store_is_away_nothing_is_judged_and_counting_goes_on(replica, clock, redis):
    one, away = replica(), connect("redis://127.0.0.1:1", timeout_s=0.2)
    await failing_canary(one, clock)
    client, one.watch._records._redis = one.watch._records._redis, away
    for _ in range(2):
        with pytest.raises(ApiError) as caught:
            await one.watch.turn()
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert one.canary
    one.call(times=3, failing=True)
    one.watch._records._redis = client
    await one.turn()
    _, (last, *_) = await one.admin.of("tiny")
    assert "in 33 calls" in last.why
    await away.aclose()


async def test_a_replica_without_the_model_leaves_the_change_to_the_others(replica, clock, engine, monkeypatch):
    one = replica()
    await failing_canary(one, clock)
    await one.watch._write()
    with monkeypatch.context() as patched:
        patched.setattr(engine, "models", list)
        await one.watch.turn()
    assert one.canary
    await one.turn()
    assert one.canary is None


async def test_an_operator_who_is_faster_is_not_undone(replica, clock):
    one, other = replica(), replica()
    await failing_canary(one, clock)
    await one.routes.look()
    await other.begin(changes.canary(None), CANARY)
    await one.watch.turn()
    record, _ = await one.admin.of("tiny")
    assert record.routes.canary
