"""The engine predicts in batches, explains, and gives every caller the right answer or error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.engine import tiny
from tests.engine.tiny import SIDE, write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, EngineSettings, Explain, Prediction
from camserve_server.engine.model import ModelVersion


@asynccontextmanager
async def running(models_dir: Path, **settings: object) -> AsyncIterator[Engine]:
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    write_model(tmp_path)
    write_model(tmp_path, "poisoned", architecture='builder = "tests.engine.tiny:PoisonedNet"')
    async with running(tmp_path, max_batch=4) as started:
        yield started


def picture(seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


async def predict(
    engine: Engine, model: ModelVersion, pixels: NDArray[np.uint8], explain: Explain | None = None, **options: object
) -> Prediction:
    options = {"tenant": "t", "lane": "unary"} | options
    return await engine.predict(model, pixels, explain, **options)


async def between_batches(engine: Engine, key: tuple[str, str], function: Callable[[], None]) -> None:
    """Runs the function on the thread of the version with that key, when it has no batch."""
    await engine._loader.served(engine.resolve(*key)).runner.call(function)


class HeldEngine:
    """Keeps every version's thread busy until it is let go, so that a queue can be looked at."""

    def __init__(self, engine: Engine) -> None:
        self.free = threading.Event()
        self._engine = engine

    async def __aenter__(self) -> HeldEngine:
        keys = [model.key for model in self._engine.models()]
        taken = threading.Barrier(len(keys) + 1)

        def hold() -> None:
            taken.wait()
            self.free.wait()

        self.holding = [asyncio.create_task(between_batches(self._engine, key, hold)) for key in keys]
        await asyncio.to_thread(taken.wait)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.free.set()
        await asyncio.gather(*self.holding)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_picture_gets_probabilities_and_no_map_unasked(engine: Engine) -> None:
    answer = await predict(engine, engine.resolve("tiny", "stable"), picture())
    assert answer.probs.shape == (3,)
    assert answer.probs.dtype == np.float32
    assert answer.probs.sum() == pytest.approx(1)
    assert (answer.cam, answer.layer, answer.method, answer.target) == (None, None, None, None)
    assert answer.batch_size == 1
    assert answer.inference_ms > 0
    assert answer.cam_ms == 0


async def test_an_explained_picture_names_what_its_map_shows(engine: Engine) -> None:
    model = engine.resolve("tiny", "1")
    answer = await predict(engine, model, picture(), Explain("auto", "layercam", 2))
    assert (answer.layer, answer.method, answer.target) == ("body", "layercam", 2)
    assert answer.cam is not None
    assert answer.cam.shape == (16, 16)
    assert answer.cam.dtype == np.float32
    assert answer.cam.min() >= 0
    assert answer.cam_ms > 0
    top = await predict(engine, model, picture(), Explain("auto", "gradcam", None))
    assert top.target == int(top.probs.argmax())


async def test_probabilities_are_calibrated(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path, version="2", top="", calibration="temperature = 0.25\nversion = '7'")
    async with running(tmp_path) as engine:
        plain, sharp = engine.resolve("tiny", "1"), engine.resolve("tiny", "2")
        assert sharp.calibration_version == "7"
        logits = np.log((await predict(engine, plain, picture())).probs.astype(np.float64))
        expected = np.exp(4 * logits) / np.exp(4 * logits).sum()
        assert np.allclose((await predict(engine, sharp, picture())).probs, expected, atol=1e-6)


async def test_pictures_waiting_together_run_together_and_equal_one_by_one(engine: Engine) -> None:
    model = engine.resolve("tiny", "stable")
    wishes = [None, Explain("auto", "gradcam", None), Explain("stem", "hirescam", 1), None]
    async with HeldEngine(engine):
        calls = [asyncio.create_task(predict(engine, model, picture(seed), wish)) for seed, wish in enumerate(wishes)]
        await settle()
        assert engine.stats().queue_depth["tiny", "1"] == 4
    together = await asyncio.gather(*calls)
    for seed, (wish, answer) in enumerate(zip(wishes, together, strict=True)):
        assert answer.batch_size == 4
        alone = await predict(engine, model, picture(seed), wish)
        assert np.allclose(answer.probs, alone.probs, atol=1e-5)
        assert answer.target == alone.target
        if alone.cam is not None and answer.cam is not None:
            assert np.allclose(answer.cam, alone.cam, atol=1e-5)


async def test_the_same_picture_gets_the_same_answer_every_time(engine: Engine) -> None:
    model, wish = engine.resolve("tiny", "stable"), Explain("auto", "gradcam++", None)
    first, second = [await predict(engine, model, picture(), wish) for _ in range(2)]
    assert np.array_equal(first.probs, second.probs)
    assert first.cam is not None
    assert np.array_equal(first.cam, second.cam)


async def test_the_callers_memory_is_its_own_again_once_queued(engine: Engine) -> None:
    model, pixels = engine.resolve("tiny", "stable"), picture()
    async with HeldEngine(engine):
        call = asyncio.create_task(predict(engine, model, pixels))
        await settle()
        pixels[:] = 0
    assert np.array_equal((await call).probs, (await predict(engine, model, picture())).probs)


@pytest.mark.parametrize(
    ("explain", "reason"),
    [
        (Explain("no.such", "gradcam", None), Reason.PARAM_LAYER_NOT_FOUND),
        (Explain("", "gradcam", None), Reason.PARAM_LAYER_NOT_FOUND),
        (Explain("shared", "gradcam", None), Reason.PARAM_LAYER_NOT_FOUND),
        (Explain("aside", "gradcam", None), Reason.PARAM_LAYER_NOT_FOUND),
        (Explain("auto", "guesscam", None), Reason.PARAM_INVALID),
        (Explain("auto", "gradcam", 3), Reason.PARAM_OUT_OF_RANGE),
        (Explain("auto", "gradcam", -1), Reason.PARAM_OUT_OF_RANGE),
    ],
)
async def test_an_impossible_wish_is_refused(engine: Engine, explain: Explain, reason: Reason) -> None:
    with pytest.raises(ApiError) as refused:
        await predict(engine, engine.resolve("tiny", "stable"), picture(), explain)
    assert refused.value.reason is reason


async def test_only_the_picture_that_breaks_the_model_fails(engine: Engine) -> None:
    model = engine.resolve("poisoned", "stable")
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    async with HeldEngine(engine):
        calls = [asyncio.create_task(predict(engine, model, one)) for one in (picture(1), white, picture(2))]
        await settle()
    good, poison, also_good = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(good, Prediction)
    assert isinstance(also_good, Prediction)
    assert isinstance(poison, ApiError)
    assert poison.reason is Reason.INTERNAL
    assert (await predict(engine, model, picture(1))).probs.shape == (3,)


async def test_a_wait_is_estimated_from_the_batches_before(engine: Engine) -> None:
    model = engine.resolve("tiny", "stable")
    assert engine.wait_s(model) == 0
    await predict(engine, model, picture())
    assert engine.wait_s(model) == 0
    waits = []
    async with HeldEngine(engine):
        calls = []
        for seed in range(3):
            calls.append(asyncio.create_task(predict(engine, model, picture(seed))))
            await settle()
            waits.append(engine.wait_s(model))
    await asyncio.gather(*calls)
    assert waits == pytest.approx([waits[0], 2 * waits[0], 3 * waits[0]])
    assert waits[0] > 0


async def test_full_queue_refuses_unary_at_once_and_lets_streams_wait(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, max_batch=2, queue_limit=2) as engine:
        model = engine.resolve("tiny", "stable")
        async with HeldEngine(engine):
            calls = [asyncio.create_task(predict(engine, model, picture())) for _ in range(2)]
            streams = [
                asyncio.create_task(predict(engine, model, picture(), lane="stream", tenant=tenant))
                for tenant in "aabb"
            ]
            await settle()
            with pytest.raises(ApiError) as refused:
                await predict(engine, model, picture())
            assert refused.value.reason is Reason.SERVICE_OVERLOADED
            assert engine.stats().queue_depth["tiny", "1"] == 4
        assert len(await asyncio.gather(*calls, *streams)) == 6
        await predict(engine, model, picture())


async def test_a_caller_who_leaves_takes_its_entry_along(engine: Engine) -> None:
    model = engine.resolve("tiny", "stable")
    async with HeldEngine(engine):
        stays, leaves = [asyncio.create_task(predict(engine, model, picture())) for _ in range(2)]
        await settle()
        leaves.cancel()
        await settle()
        assert engine.stats().queue_depth["tiny", "1"] == 1
    assert (await stays).batch_size == 1
    with pytest.raises(asyncio.CancelledError):
        await leaves


@pytest.mark.parametrize("lane", ["unary", "stream"])
async def test_a_deadline_that_passes_in_the_queue_is_a_timeout(engine: Engine, lane: str) -> None:
    model = engine.resolve("tiny", "stable")
    async with HeldEngine(engine):
        with pytest.raises(ApiError) as late:
            await predict(engine, model, picture(), lane=lane, deadline_monotonic=time.monotonic() + 0.01)
        assert late.value.reason is Reason.TIMEOUT_EXCEEDED
        assert engine.stats().queue_depth["tiny", "1"] == 0


async def test_a_picture_of_another_size_is_a_fault_of_the_caller(engine: Engine) -> None:
    with pytest.raises(ValueError, match="input size"):
        await predict(engine, engine.resolve("tiny", "stable"), np.zeros((8, 8, 3), np.uint8))


async def test_closing_refuses_those_who_wait_and_those_who_come(tmp_path: Path) -> None:
    write_model(tmp_path)
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1))
    await engine.start()
    model = engine.resolve("tiny", "stable")
    async with HeldEngine(engine) as held:
        waits = asyncio.create_task(predict(engine, model, picture()))
        await settle()
        closing = asyncio.create_task(engine.close())
        await settle()
        held.free.set()
    await closing
    for call in (waits, predict(engine, model, picture())):
        with pytest.raises(ApiError) as refused:
            await call
        assert refused.value.reason is Reason.SERVICE_DRAINING


async def test_every_batch_is_reported(engine: Engine) -> None:
    reports: list[tuple[str, int, float, float]] = []
    engine.on_batch = lambda model, size, inference_ms, cam_ms: reports.append((model.name, size, inference_ms, cam_ms))
    model = engine.resolve("tiny", "stable")
    answer = await predict(engine, model, picture(), Explain("auto", "gradcam", None))
    assert reports == [("tiny", 1, answer.inference_ms, answer.cam_ms)]
    assert (engine.stats().batches, engine.stats().pictures) == (1, 1)


async def test_the_loop_is_free_while_models_load(tmp_path: Path) -> None:
    tiny.HELD.shut()
    write_model(tmp_path, architecture='builder = "tests.engine.tiny:HeldNet"')
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1))
    starting = asyncio.create_task(engine.start())
    await asyncio.to_thread(tiny.HELD.reached.wait)
    assert [model.state for model in engine.models()] == ["loading"]
    with pytest.raises(ApiError) as early:
        engine.resolve("tiny", "stable")
    assert early.value.reason is Reason.MODEL_UNAVAILABLE
    tiny.HELD.free.set()
    await starting
    assert engine.resolve("tiny", "stable").state == "ready"
    await engine.close()


def test_a_device_that_is_not_there_stops_the_start() -> None:
    for name in ("tpu", "meta", "cuda:99"):
        with pytest.raises(ValueError, match="device"):
            Engine(EngineSettings((), device=name))


async def test_a_version_runs_on_a_thread_of_its_own_with_the_thread_count(engine: Engine) -> None:
    for model in engine.models():
        ran_in: list[tuple[str, int]] = []
        assert model.module is not None
        model.module.register_forward_pre_hook(
            lambda *_, ran_in=ran_in: ran_in.append((threading.current_thread().name, torch.get_num_threads()))
        )
        await predict(engine, model, picture())
        assert ran_in == [("/".join(model.key), 1)]


async def test_versions_that_claim_the_same_alias_all_serve(tmp_path: Path) -> None:
    for version in "12":
        write_model(tmp_path, version=version)
    async with running(tmp_path) as engine:
        assert engine.resolve("tiny", "stable").version == "2"
        for model in engine.models():
            engine.check_circuit(model)
            assert engine.works(model)
            assert (await predict(engine, model, picture(), lane="stream")).batch_size == 1


async def test_a_version_that_cannot_serve_keeps_no_thread(tmp_path: Path) -> None:
    write_model(tmp_path, "broken", top="=")
    write_model(tmp_path)
    before = set(threading.enumerate())
    async with running(tmp_path):
        made = set(threading.enumerate()) - before
        assert {thread.name for thread in made} & {"broken/1", "tiny/1"} == {"tiny/1"}
    assert "tiny/1" not in {thread.name for thread in made if thread.is_alive()}
