from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from prometheus_client import REGISTRY
from tests.clock import FakeClock
from tests.engine.pools import SETTINGS, running, until
from tests.engine.tiny import write_model
from tests.images import star_png

from camserve_server.core import model_route_changes as changes
from camserve_server.core import shadows as module
from camserve_server.core.infer_options import HeatmapOptions, InferOptions
from camserve_server.core.model_figures import ModelFigures
from camserve_server.core.model_route_changes import RouteChanges
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.core.shadows import Shadows, pause_s
from camserve_server.engine.buffers import ByteBudget, SharedBuffer
from camserve_server.engine.engine import Engine, EngineSettings, EngineStats, Explain
from camserve_server.engine.imaging import DecodeRequest
from camserve_server.stores.durability import Disk
from camserve_server.stores.model_routes import Canary, RouteRecords, Shadow

LARGER = 'width = 48\nheight = 48\nfit = "pad"\nmean = [0.0, 0.0, 0.0]\nstd = [1.0, 1.0, 1.0]'


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    write_model(folder, version="1")
    write_model(folder, version="same", top="", weights="random = 1")
    write_model(folder, version="larger", top="", weights="random = 2", input=LARGER)
    write_model(folder, version="failing", top="", architecture='builder = "tests.engine.tiny:PoisonedNet"')
    return folder


@pytest.fixture
def budget():
    return ByteBudget(1 << 20)


@pytest.fixture
async def parts(models_dir, redis, budget):
    """The shadows of a replica, and what they are made of."""
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, max_batch=2))
    await engine.start()
    async with running(SETTINGS) as imaging:
        records = RouteRecords(redis, Disk())
        routes = ModelRoutes(records, engine)
        figures = ModelFigures(FakeClock())
        shadows = Shadows(engine, imaging, routes, figures)
        made = Made(engine, imaging, shadows, RouteChanges(records, routes, engine, FakeClock()), budget)
        figures.compare = made.compared.append
        shadows.start()
        yield made
        await shadows.close()
    await engine.close()


class Made:
    def __init__(self, engine, imaging, shadows, admin, budget):
        self.engine, self.imaging, self.shadows, self.admin, self.budget = engine, imaging, shadows, admin, budget
        self.compared = []

    async def shadow(self, version, percent=100.0):
        await self.admin.make("tiny", changes.shadow(Shadow(version, percent) if version else None), by="ann")

    async def answer(self, version="1", *, heatmap=None, data=None):
        """Answers a call as InferService does, and offers it."""
        answering = self.engine.resolve("tiny", version)
        explain = Explain(heatmap.layer, heatmap.method, 2) if heatmap else None
        with SharedBuffer.create("image", self.budget) as image:
            image.append(star_png() if data is None else data)
            with await self.imaging.decode(image, DecodeRequest(answering.input)) as picture:
                answer = await self.engine.predict(answering, picture.pixels, explain, tenant="a", lane="unary")
                self.shadows.offer(answering, answer, InferOptions("tiny", version, heatmap=heatmap), image, picture)
        return answer


def busy(parts, monkeypatch, waiting):
    monkeypatch.setattr(parts.engine, "stats", lambda: EngineStats({("other", "1"): waiting}, 0, 0))


def sample(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def figures(version):
    labels = {"model": "tiny", "version": version, "role": "shadow"}
    names = ("camserve_model_calls_total", "camserve_model_errors_total", "camserve_model_seconds_count")
    return [sample(name, **labels) for name in names]


def outcomes(outcome):
    return sample("camserve_shadows_total", outcome=outcome)


@pytest.mark.parametrize("version", ["same", "larger"])
async def test_a_shadow_sees_the_picture_and_both_predictions_are_told(parts, budget, version):
    await parts.shadow(version)
    before = figures(version)
    answer = await parts.answer()
    await until(lambda: parts.compared)
    (compared,) = parts.compared
    assert (compared.answering.version, compared.shadow.version) == ("1", version)
    assert compared.answer is answer
    assert (compared.width, compared.height) == (160, 160)
    assert (compared.view, compared.shown_view) == ((0, 0, 1, 1), (0, 0, 1, 1))
    assert not np.allclose(compared.shown.probs, answer.probs)
    assert compared.shown.cam is None
    assert [now - then for now, then in zip(figures(version), before, strict=True)] == [1, 0, 1]
    await until(lambda: budget.taken_bytes == 0)


async def test_its_prediction_is_the_one_that_it_would_have_answered(parts):
    await parts.shadow("larger")
    await parts.answer()
    await until(lambda: parts.compared)
    own = await parts.answer("larger")
    assert np.allclose(parts.compared[0].shown.probs, own.probs, atol=1e-6)


async def test_it_explains_the_class_that_the_answer_explained(parts):
    await parts.shadow("same")
    await parts.answer(heatmap=HeatmapOptions(layer="stem", method="gradcam++"))
    await until(lambda: parts.compared)
    shown = parts.compared[0].shown
    assert (shown.target, shown.layer, shown.method) == (2, "stem", "gradcam++")
    assert shown.cam is not None


async def test_without_a_shadow_the_canary_sees_what_others_answer(parts):
    await parts.admin.make("tiny", changes.canary(Canary("same", "stable", 5.0, shadow_percent=100.0)), by="ann")
    await parts.answer()
    await until(lambda: parts.compared)
    assert parts.compared[0].shadow.version == "same"
    await parts.shadow("larger")
    await parts.answer()
    await until(lambda: len(parts.compared) == 2)
    assert parts.compared[1].shadow.version == "larger"


async def test_without_a_shadow_with_none_of_its_share_and_of_its_own_answers_it_sees_nothing(parts):
    await parts.answer()
    await parts.shadow("same", 1e-9)
    await parts.answer()
    await parts.shadow("same")
    await parts.answer("same")
    await parts.shadow(None)
    await parts.answer()
    assert parts.shadows._waiting.empty()


async def test_while_the_device_is_busy_or_enough_wait_calls_are_dropped(parts, monkeypatch, budget):
    await parts.shadow("larger")
    dropped, shown = outcomes("dropped"), outcomes("shown")
    busy(parts, monkeypatch, 1)
    await parts.answer()
    assert outcomes("dropped") == dropped + 1
    busy(parts, monkeypatch, 0)
    monkeypatch.setattr(module, "_AFTER_S", 60.0)
    for _ in range(module._MOST_WAITING + 3):
        await parts.answer()
    # One of them is with the shadow already.
    assert outcomes("dropped") == dropped + 3
    await parts.shadows.close()
    assert budget.taken_bytes == 0
    assert outcomes("shown") == shown


async def test_a_call_that_waited_until_the_device_was_busy_is_dropped(parts, monkeypatch):
    await parts.shadow("same")
    dropped = outcomes("dropped")
    await parts.answer()
    busy(parts, monkeypatch, 1)
    await until(lambda: outcomes("dropped") == dropped + 1)
    assert parts.compared == []


async def test_what_waits_for_a_shadow_that_has_ended_is_dropped(parts, monkeypatch):
    await parts.shadow("same")
    dropped = outcomes("dropped")
    monkeypatch.setattr(module, "_AFTER_S", 0.2)
    for _ in range(3):
        await parts.answer()
    await parts.shadow(None)
    await until(lambda: outcomes("dropped") == dropped + 3)
    assert parts.compared == []


async def test_an_image_too_large_to_be_kept_is_dropped(parts, monkeypatch):
    monkeypatch.setattr(module, "_LARGEST_BYTES", 100)
    dropped = outcomes("dropped")
    await parts.shadow("larger")
    await parts.answer()
    assert outcomes("dropped") == dropped + 1
    # Nothing of it is kept for a shadow that sees pictures at the same size.
    await parts.shadow("same")
    await parts.answer()
    await until(lambda: parts.compared)


async def test_a_shadow_that_fails_is_counted_and_goes_on(parts, monkeypatch):
    # Telling of a failure takes seconds here, and each twenty times as long a pause.
    monkeypatch.setattr(module, "_SHARE_OF_TIME", 1.0)
    await parts.shadow("failing")
    calls, errors, timed = figures("failing")
    failed = outcomes("failed")
    for _ in range(2):
        await parts.answer(data=white())
    await until(lambda: outcomes("failed") == failed + 2)
    assert figures("failing") == [calls + 2, errors + 2, timed]
    await parts.answer()
    await until(lambda: parts.compared)


def test_it_takes_a_twentieth_of_the_time_unless_it_hangs():
    assert pause_s(0.01) == pytest.approx(0.19)
    assert pause_s(300.0) == 60.0


async def test_what_stops_leaves_nothing_behind(parts, budget):
    await parts.shadow("larger")
    for _ in range(4):
        await parts.answer()
    await parts.shadows.close()
    assert budget.taken_bytes == 0


def white():
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "white").save(file, "PNG")
    return file.getvalue()
