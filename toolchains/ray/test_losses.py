"""Actors and nodes are killed while batches run, and every call is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client import REGISTRY
from tests.engine.test_engine import picture, predict, running
from tests.engine.test_engine_faults import error
from tests.engine.tiny import write_model
from toolchains.ray.conftest import Nodes, ray_engine

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, ModelFailedError, Prediction
from camserve_server.engine.model import ModelVersion

_SLOW = 'builder = "tests.engine.tiny:SlowNet"'
_SWITCHED = 'builder = "tests.engine.tiny:SwitchedNet"'


@pytest.fixture
def fault(nodes: Nodes) -> Iterator[Path]:
    """What `SwitchedNet` does, in this file."""
    yield nodes.fault
    nodes.fault.unlink(missing_ok=True)


def actors(nodes: Nodes) -> list[psutil.Process]:
    """Returns the actors' processes."""
    workers = [worker for pid in nodes.pids() for worker in psutil.Process(pid).children()]
    return [worker for worker in workers if "ModelActor" in " ".join(worker.cmdline())]


def at_work(nodes: Nodes) -> list[psutil.Process]:
    """Returns those that run a batch now."""
    return [actor for actor in actors(nodes) if "ModelActor.run" in " ".join(actor.cmdline())]


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.02)


def width(name: str) -> float | None:
    return REGISTRY.get_sample_value("camserve_engine_width", {"model": name, "version": "1"})


def is_tried(engine: Engine, model: ModelVersion) -> bool:
    """Whether the pause of the version's breaker is over."""
    try:
        engine.check_circuit(model)
    except ApiError:
        return False
    return True


async def all_answered(engine: Engine, count: int, then: Callable[[], object]) -> list[Prediction]:
    """Returns the answers to so many calls, in the middle of which something happens."""
    model = engine.resolve("tiny", "1")
    calls = [asyncio.create_task(predict(engine, model, picture(seed), tenant=f"t{seed % 3}")) for seed in range(count)]
    await asyncio.to_thread(then)
    return await asyncio.gather(*calls)


def kill_actor(nodes: Nodes) -> None:
    at_work(nodes)[0].kill()


def kill_node(nodes: Nodes) -> None:
    nodes.kill(at_work(nodes)[0].ppid())


@pytest.mark.parametrize(("kill", "left"), [(kill_actor, 2), (kill_node, None)])
async def test_what_is_killed_in_the_middle_of_a_batch_loses_no_call(
    nodes: Nodes, tmp_path: Path, kill: Callable[[Nodes], None], left: int | None
) -> None:
    write_model(tmp_path, architecture=_SLOW)
    nodes.at_least(2)
    async with ray_engine(tmp_path, nodes, min_actors=2, max_actors=2, max_batch=4) as engine:
        await until(lambda: width("tiny") == 2)

        async def in_the_middle() -> None:
            await until(lambda: at_work(nodes))
            kill(nodes)

        answers = await all_answered(engine, 24, lambda: asyncio.run(in_the_middle()))
        assert [answer.probs.shape for answer in answers] == [(3,)] * 24
        # An actor is started again at once, on a node there is.
        if left:
            await until(lambda: width("tiny") == left)
        assert engine.works(engine.resolve("tiny", "1"))


async def test_without_any_actor_the_version_is_left_alone_and_serves_once_there_is_a_node(
    nodes: Nodes, tmp_path: Path
) -> None:
    write_model(tmp_path)
    nodes.at_least(1)
    async with ray_engine(tmp_path, nodes) as engine:
        model = engine.resolve("tiny", "1")
        nodes.kill_all()
        refused = [await error(engine, model) for _ in range(3)]
        assert {one.reason for one in refused} == {Reason.CIRCUIT_OPEN}
        assert not engine.works(model)
        nodes.add()
        await until(lambda: width("tiny") == 1)
        await until(lambda: is_tried(engine, model))
        assert (await predict(engine, model, picture())).probs.shape == (3,)
        assert engine.works(model)


async def test_an_actor_that_hangs_is_replaced(nodes: Nodes, tmp_path: Path, fault: Path) -> None:
    write_model(tmp_path, architecture=_SWITCHED)
    nodes.at_least(1)
    async with ray_engine(tmp_path, nodes, pass_deadline_s=1) as engine:
        model = engine.resolve("tiny", "1")
        fault.write_text("hang")
        assert (await error(engine, model)).reason is Reason.TIMEOUT_EXCEEDED
        fault.unlink()
        await until(lambda: width("tiny") == 1)
        assert (await predict(engine, model, picture())).probs.shape == (3,)


async def test_memory_that_is_too_short_in_an_actor_is_told_and_opens_the_circuit_as_in_process(
    nodes: Nodes, tmp_path: Path, fault: Path
) -> None:
    write_model(tmp_path, architecture=_SWITCHED)
    nodes.at_least(1)
    async with ray_engine(tmp_path, nodes) as engine:
        model = engine.resolve("tiny", "1")
        fault.write_text("memory")
        for _ in range(3):
            assert isinstance(await error(engine, model), ModelFailedError)
        assert (await error(engine, model)).reason is Reason.CIRCUIT_OPEN


async def test_a_version_whose_pictures_wait_gets_another_actor(nodes: Nodes, tmp_path: Path) -> None:
    write_model(tmp_path, architecture=_SLOW)
    nodes.at_least(2)
    async with ray_engine(tmp_path, nodes, min_actors=1, max_actors=2, max_batch=2) as engine:
        assert width("tiny") == 1
        model = engine.resolve("tiny", "1")

        async def call() -> None:
            while width("tiny") != 2:
                await predict(engine, model, picture())

        await asyncio.gather(*(call() for _ in range(8)))


async def test_a_version_that_cannot_be_loaded_says_why_as_in_process(nodes: Nodes, tmp_path: Path) -> None:
    write_model(tmp_path, weights='file = "weights.safetensors"')
    (tmp_path / "tiny/1/weights.safetensors").write_bytes(b"no tensors")
    nodes.at_least(1)
    async with running(tmp_path) as here, ray_engine(tmp_path, nodes) as there:
        (own,), (model,) = here.models(), there.models()
        assert (model.state, model.reason) == (own.state, own.reason)
        with pytest.raises(ApiError) as refused:
            there.resolve("tiny", "1")
        assert refused.value.reason is Reason.MODEL_UNAVAILABLE
