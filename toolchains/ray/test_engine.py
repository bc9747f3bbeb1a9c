"""Models on a cluster pass the engine's own tests, and answer as those in process do, to the last bit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from tests.engine import test_engine
from tests.engine.test_engine import HeldEngine, picture, predict, running, settle
from tests.engine.tiny import write_model
from toolchains.ray.conftest import Nodes, ray_engine

from camserve_server.base import bundle
from camserve_server.engine.engine import Engine, Explain, Prediction

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Those that look at the engine from outside. They take the fixture `engine` of this module.
_SAME = (
    "test_a_picture_gets_probabilities_and_no_map_unasked",
    "test_an_explained_picture_names_what_its_map_shows",
    "test_pictures_waiting_together_run_together_and_equal_one_by_one",
    "test_the_same_picture_gets_the_same_answer_every_time",
    "test_the_callers_memory_is_its_own_again_once_queued",
    "test_an_impossible_wish_is_refused",
    "test_only_the_picture_that_breaks_the_model_fails",
    "test_a_wait_is_estimated_from_the_batches_before",
    "test_a_caller_who_leaves_takes_its_entry_along",
    "test_a_deadline_that_passes_in_the_queue_is_a_timeout",
    "test_a_picture_of_another_size_is_a_fault_of_the_caller",
)
globals().update({name: getattr(test_engine, name) for name in _SAME})


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder)
    write_model(folder, "poisoned", architecture='builder = "tests.engine.tiny:PoisonedNet"')
    (folder / "shapes").mkdir()
    (folder / "shapes/2").symlink_to(bundle.MODELS / "shapes/2")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(models_dir: Path, nodes: Nodes) -> AsyncIterator[Engine]:
    nodes.add(2)
    async with ray_engine(models_dir, nodes, max_batch=4, cpus=0.25) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def local(models_dir: Path) -> AsyncIterator[Engine]:
    async with running(models_dir, max_batch=4) as started:
        yield started


async def a_batch(engine: Engine, model: str) -> list[Prediction]:
    """Returns the answers to four pictures that run together, of several kinds."""
    version = engine.resolve(model, "stable")
    side = version.input.height
    wishes = [None, Explain("auto", "gradcam", None), Explain("auto", "layercam", 1), Explain("auto", "hirescam", 2)]
    pictures = [np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8) for seed in range(4)]
    async with HeldEngine(engine):
        calls = [
            asyncio.create_task(predict(engine, version, one, wish)) for one, wish in zip(pictures, wishes, strict=True)
        ]
        await settle()
    return await asyncio.gather(*calls)


@pytest.mark.parametrize("model", ["tiny", "shapes"])
async def test_a_batch_gets_the_same_answers_as_in_process_to_the_last_bit(
    engine: Engine, local: Engine, model: str
) -> None:
    for here, there in zip(await a_batch(local, model), await a_batch(engine, model), strict=True):
        assert here.batch_size == there.batch_size == 4
        assert np.array_equal(here.probs, there.probs)
        assert (here.cam is None) == (there.cam is None)
        if here.cam is not None and there.cam is not None:
            assert np.array_equal(here.cam, there.cam)
        assert (here.layer, here.method, here.target) == (there.layer, there.method, there.target)


async def test_a_version_is_listed_as_in_process(engine: Engine, local: Engine) -> None:
    assert told(engine) == told(local)


def told(engine: Engine) -> list[dict[str, object]]:
    names = ("key", "state", "reason", "aliases", "labels", "layers", "default_layer", "content_hash", "golden")
    return [{name: getattr(model, name) for name in names} for model in engine.models()]


async def test_golden_inputs_are_run_anew_by_an_actor(engine: Engine) -> None:
    assert (await engine.rerun_golden("shapes", "stable")).golden == "passed"
    assert (await predict(engine, engine.resolve("tiny", "1"), picture())).probs.shape == (3,)
