"""A forward pass that does not return holds up nobody else's, and its version is left alone until it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.clock import FakeClock
from tests.engine.test_engine import HeldEngine, between_batches, picture, predict, settle
from tests.engine.test_engine_faults import net
from tests.engine.tiny import Gate, write_model
from torch import Tensor

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, EngineSettings, Explain, Prediction
from camserve_server.engine.model import ModelVersion
from camserve_server.engine.rescue import run_batch

DEADLINE_S = 0.5
# Longer than a batch has the device to itself.
A_TURN_S = 0.2


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Engine]:
    write_model(tmp_path)
    write_model(tmp_path, "hanging", architecture='builder = "tests.engine.tiny:FaultyNet"')
    settings = EngineSettings(
        (tmp_path,), device="cpu", torch_threads=1, max_batch=2, queue_limit=4, pass_deadline_s=DEADLINE_S
    )
    engine = Engine(settings, monotonic=clock.monotonic)
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def hanging(engine: Engine) -> ModelVersion:
    return engine.resolve("hanging", "1")


@pytest.fixture
def gate(hanging: ModelVersion) -> Iterator[Gate]:
    gate = Gate()

    def fault(x: Tensor, scores: Tensor) -> Tensor:
        gate.reached.set()
        gate.free.wait()
        return scores

    net(hanging).fault = fault
    yield gate
    gate.free.set()


async def hung(engine: Engine, model: ModelVersion, gate: Gate, **options: object) -> asyncio.Task[Prediction]:
    """Returns a call whose forward pass hangs by now."""
    gate.reached.clear()
    call = asyncio.create_task(predict(engine, model, picture(), **options))
    await asyncio.to_thread(gate.reached.wait)
    return call


async def refusal(call: asyncio.Task[Prediction]) -> Reason:
    with pytest.raises(ApiError) as refused:
        await call
    return refused.value.reason


async def test_others_run_beside_a_pass_that_takes_longer_than_its_turn(
    engine: Engine, hanging: ModelVersion, gate: Gate, clock: FakeClock
) -> None:
    slow = await hung(engine, hanging, gate)
    other = engine.resolve("tiny", "1")
    calls = [asyncio.create_task(predict(engine, other, picture(seed))) for seed in range(3)]
    await settle()
    assert engine.stats().queue_depth["tiny", "1"] == 3
    clock.advance(A_TURN_S)
    assert [(await call).batch_size for call in calls] == [2, 2, 1]
    assert not slow.done()
    gate.free.set()
    assert isinstance(await slow, Prediction)
    assert engine.works(hanging)


async def test_a_version_runs_one_batch_at_a_time(
    engine: Engine, hanging: ModelVersion, gate: Gate, clock: FakeClock
) -> None:
    del net(hanging).batches[:]
    slow = await hung(engine, hanging, gate)
    second = asyncio.create_task(predict(engine, hanging, picture()))
    await settle()
    clock.advance(A_TURN_S)
    # Whoever could have run by now has.
    await predict(engine, engine.resolve("tiny", "1"), picture())
    assert net(hanging).batches == [1]
    gate.free.set()
    await asyncio.gather(slow, second)


async def test_a_version_whose_pass_hangs_is_left_alone_and_tried_once_it_returns(
    engine: Engine, hanging: ModelVersion, gate: Gate, clock: FakeClock
) -> None:
    for _ in range(2):
        caught = await hung(engine, hanging, gate)
        lanes = ["unary", *["stream"] * 6] if engine.works(hanging) else []
        waiting = [asyncio.create_task(predict(engine, hanging, picture(), lane=lane)) for lane in lanes]
        await settle()
        clock.advance(DEADLINE_S)
        assert await refusal(caught) is Reason.TIMEOUT_EXCEEDED
        assert [await refusal(call) for call in waiting] == [Reason.CIRCUIT_OPEN] * len(lanes)
        for after_s, hint in ((0, 1), (5, 5), (1000, 30)):
            clock.advance(after_s)
            with pytest.raises(ApiError) as refused:
                engine.check_circuit(hanging)
            assert (refused.value.reason, refused.value.retry_after_s) == (Reason.CIRCUIT_OPEN, hint)
        assert not engine.works(hanging)
        assert isinstance(await predict(engine, engine.resolve("tiny", "1"), picture()), Prediction)
        gate.free.set()
        await between_batches(engine, hanging.key, lambda: None)
        engine.check_circuit(hanging)
        assert not engine.works(hanging)
        gate.free.clear()
    gate.free.set()
    assert isinstance(await predict(engine, hanging, picture()), Prediction)
    assert engine.works(hanging)


async def test_what_comes_too_late_is_no_answer_and_tells_nothing(
    engine: Engine, hanging: ModelVersion, gate: Gate, clock: FakeClock
) -> None:
    gate.free.set()
    await predict(engine, hanging, picture())
    gate.free.clear()
    reports: list[int] = []
    engine.on_batch = lambda model, size, *_: reports.append(size)
    caught = await hung(engine, hanging, gate)
    clock.advance(DEADLINE_S)
    await refusal(caught)
    gate.free.set()
    await between_batches(engine, hanging.key, lambda: None)
    assert (reports, engine.stats().pictures) == ([], 1)
    async with HeldEngine(engine):
        waits = asyncio.create_task(predict(engine, hanging, picture()))
        await settle()
        assert engine.wait_s(hanging) < DEADLINE_S / 10
    await waits


async def test_a_pass_that_hangs_does_not_hold_up_the_end(
    engine: Engine, hanging: ModelVersion, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_server.engine.engine._LAST_BATCH_S", 0.0)
    caught = await hung(engine, hanging, gate)
    await engine.close()
    assert await refusal(caught) is Reason.SERVICE_DRAINING


async def test_each_pass_of_a_batch_has_the_deadline_for_itself(hanging: ModelVersion) -> None:
    network, passes = net(hanging), 0

    def note_pass() -> None:
        nonlocal passes
        passes += 1

    def forwards() -> int:
        done = len(network.batches)
        del network.batches[:]
        return done

    del network.batches[:]
    explains = [Explain("body", "gradcam", None), Explain("stem", "gradcam", None), None]
    run_batch(hanging, [picture()] * 3, explains, note_pass)
    assert (passes, forwards()) == (2, 2)

    def fault(x: Tensor, scores: Tensor) -> Tensor:
        if len(x) > 1:
            raise RuntimeError("broken")
        return scores

    network.fault = fault
    run_batch(hanging, [picture()] * 3, [None] * 3, note_pass)
    # The batch, a picture of ours, and each one alone.
    assert (passes, forwards()) == (7, 5)
