"""On several cores two batches of a version run side by side, and nobody's answer is another one for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.clock import FakeClock
from tests.engine.test_engine import HeldEngine, picture, predict, settle
from tests.engine.test_golden import write_golden
from tests.engine.tiny import Gate, TinyNet, write_model
from torch import Tensor, nn

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, EngineSettings, Explain, Prediction
from camserve_server.engine.lanes import twin
from camserve_server.engine.model import ModelVersion, load_version

DEADLINE_S = 0.5
PATIENCE_S = 20.0
# Longer than a batch has the device to itself.
A_TURN_S = 0.2


class Meeting:
    """What WatchedNet does in its passes: notes their threads, waits for another pass, or at a gate."""

    def __init__(self) -> None:
        self.barrier: threading.Barrier | None = None
        self.gate: Gate | None = None
        self.threads: list[int] = []


MEETING = Meeting()


class WatchedNet(TinyNet):
    """Does in its passes what MEETING says; a copy of it does so too."""

    def forward(self, x: Tensor) -> Tensor:
        MEETING.threads.append(torch.get_num_threads())
        gate, MEETING.gate = MEETING.gate, None
        if MEETING.barrier is not None:
            MEETING.barrier.wait(PATIENCE_S)
        if gate is not None:
            gate.reached.set()
            gate.free.wait(PATIENCE_S)
        return super().forward(x)


class LockedNet(TinyNet):
    """Holds what cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class ListeningNet(TinyNet):
    """Scores what a function saw that a copy of the network shares with it."""

    def __init__(self) -> None:
        super().__init__()
        own = self

        def listen(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            own.seen = output

        self.stem.register_forward_hook(listen)
        self.seen = torch.zeros(1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        seen, self.seen = self.seen, torch.zeros(1, 1, 1, 1)
        return scores + 10 * seen.mean(dim=(1, 2, 3))[:, None] * scores


@pytest.fixture(autouse=True)
def meeting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meeting]:
    monkeypatch.setattr("camserve_server.engine.lanes.LEAST_S", 0.0)
    MEETING.__init__()  # type: ignore[misc]
    yield MEETING
    MEETING.__init__()  # type: ignore[misc]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@asynccontextmanager
async def running(models_dir: Path, clock: FakeClock, *, threads: int = 2, max_batch: int = 1) -> AsyncIterator[Engine]:
    settings = EngineSettings(
        (models_dir,), device="cpu", torch_threads=threads, max_batch=max_batch, pass_deadline_s=DEADLINE_S
    )
    engine = Engine(settings, monotonic=clock.monotonic)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@pytest.fixture
async def engine(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Engine]:
    write_model(tmp_path, "watched", architecture='builder = "tests.engine.test_lanes:WatchedNet"')
    async with running(tmp_path, clock) as started:
        yield started


def lanes() -> set[str]:
    return {
        name for thread in threading.enumerate() if (name := thread.name).endswith(("/1-0", "/1-1", "/2-0", "/2-1"))
    }


async def until_tried(engine: Engine, model: ModelVersion) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                engine.check_circuit(model)
                return
            except ApiError:
                await asyncio.sleep(0.01)


async def test_two_batches_run_at_once_with_half_of_the_threads_each(engine: Engine, meeting: Meeting) -> None:
    model = engine.resolve("watched", "1")
    meeting.threads.clear()
    meeting.barrier = threading.Barrier(2)
    async with HeldEngine(engine):
        calls = [asyncio.create_task(predict(engine, model, picture(seed))) for seed in range(2)]
        await settle()
    assert [(await call).batch_size for call in calls] == [1, 1]
    assert meeting.threads == [1, 1]


async def test_a_batch_that_is_alone_has_all_threads(engine: Engine, meeting: Meeting) -> None:
    model = engine.resolve("watched", "1")
    meeting.threads.clear()
    for seed in range(3):
        await predict(engine, model, picture(seed))
    assert meeting.threads == [2, 2, 2]


async def test_answers_are_those_of_one_lane_whatever_runs_beside(tmp_path: Path, clock: FakeClock) -> None:
    write_model(tmp_path)
    wishes = [
        None,
        Explain("auto", "gradcam", None),
        Explain("stem", "hirescam", 1),
        Explain("body", "layercam", 2),
        Explain("body.0.conv", "gradcam", 0),
    ]
    answers = []
    for threads in (1, 2):
        async with running(tmp_path, clock, threads=threads, max_batch=3) as engine:
            model = engine.resolve("tiny", "1")
            assert len(lanes()) == (2 if threads > 1 else 0)
            calls = [predict(engine, model, picture(seed), wishes[seed % len(wishes)]) for seed in range(60)]
            answers.append(await asyncio.gather(*calls))
    for one, other in zip(*answers, strict=True):
        np.testing.assert_allclose(other.probs, one.probs, atol=1e-5)
        assert (other.layer, other.target) == (one.layer, one.target)
        assert (other.cam is None) == (one.cam is None)
        if one.cam is not None and other.cam is not None:
            np.testing.assert_allclose(other.cam, one.cam, atol=1e-5 * max(1.0, float(one.cam.max())))


async def test_a_pass_that_hangs_does_not_hold_up_the_batch_beside_it(
    engine: Engine, meeting: Meeting, clock: FakeClock
) -> None:
    model = engine.resolve("watched", "1")
    gate = meeting.gate = Gate()
    hung = asyncio.create_task(predict(engine, model, picture()))
    await asyncio.to_thread(gate.reached.wait, PATIENCE_S)
    assert isinstance(await predict(engine, model, picture(1)), Prediction)
    assert engine.works(model)
    clock.advance(DEADLINE_S)
    with pytest.raises(ApiError) as late:
        await hung
    assert late.value.reason is Reason.TIMEOUT_EXCEEDED
    with pytest.raises(ApiError) as refused:
        await predict(engine, model, picture(2))
    assert refused.value.reason is Reason.CIRCUIT_OPEN
    gate.free.set()
    await until_tried(engine, model)
    assert isinstance(await predict(engine, model, picture(3)), Prediction)
    assert engine.works(model)


async def test_batches_that_run_at_the_end_finish(engine: Engine, meeting: Meeting) -> None:
    model = engine.resolve("watched", "1")
    gates = []
    calls = []
    for seed in range(2):
        gates.append(Gate())
        meeting.gate = gates[-1]
        calls.append(asyncio.create_task(predict(engine, model, picture(seed))))
        await asyncio.to_thread(gates[-1].reached.wait, PATIENCE_S)
    closing = asyncio.create_task(engine.close())
    await settle()
    for gate in gates:
        gate.free.set()
    await closing
    assert all(isinstance(answer, Prediction) for answer in await asyncio.gather(*calls))
    assert not lanes()


async def test_golden_inputs_run_beside_calls(tmp_path: Path, clock: FakeClock) -> None:
    write_golden(tmp_path)
    async with running(tmp_path, clock) as engine:
        model = engine.resolve("tiny", "1")
        assert len(lanes()) == 2
        calls = [predict(engine, model, picture(seed), Explain("stem", "gradcam", 0)) for seed in range(20)]
        checks = [engine.rerun_golden("tiny", "1") for _ in range(5)]
        done = await asyncio.gather(*calls, *checks)
    assert [checked.golden for checked in done[20:]] == ["passed"] * 5


async def test_each_of_two_passes_that_hang_is_given_up(engine: Engine, meeting: Meeting, clock: FakeClock) -> None:
    model = engine.resolve("watched", "1")
    gates, calls = [], []
    for seed in range(2):
        gates.append(Gate())
        meeting.gate = gates[-1]
        calls.append(asyncio.create_task(predict(engine, model, picture(seed), lane="stream")))
        await asyncio.to_thread(gates[-1].reached.wait, PATIENCE_S)
        clock.advance(DEADLINE_S)
    for call in calls:
        with pytest.raises(ApiError) as late:
            await call
        assert late.value.reason is Reason.TIMEOUT_EXCEEDED
    gates[0].free.set()
    async with asyncio.timeout(PATIENCE_S):
        while len(engine._loader.served(model).runner.under_way()) == 2:
            await asyncio.sleep(0.01)
    await settle()
    with pytest.raises(ApiError) as refused:
        engine.check_circuit(model)
    assert refused.value.reason is Reason.CIRCUIT_OPEN
    gates[1].free.set()
    await until_tried(engine, model)
    assert isinstance(await predict(engine, model, picture(2)), Prediction)


async def test_others_wait_for_the_device_while_a_lane_has_its_turn(
    tmp_path: Path, clock: FakeClock, meeting: Meeting
) -> None:
    write_model(tmp_path, "watched", architecture='builder = "tests.engine.test_lanes:WatchedNet"')
    write_model(tmp_path)
    async with running(tmp_path, clock) as engine:
        gate = meeting.gate = Gate()
        slow = asyncio.create_task(predict(engine, engine.resolve("watched", "1"), picture()))
        await asyncio.to_thread(gate.reached.wait, PATIENCE_S)
        other = asyncio.create_task(predict(engine, engine.resolve("tiny", "1"), picture()))
        await asyncio.sleep(0.05)
        assert engine.stats().queue_depth["tiny", "1"] == 1
        clock.advance(A_TURN_S)
        assert isinstance(await other, Prediction)
        assert not slow.done()
        gate.free.set()
        await slow


async def test_threads_end_with_their_version(engine: Engine, tmp_path: Path) -> None:
    first = {"watched/1-0", "watched/1-1"}
    # One that no alias names may go.
    folder = write_model(tmp_path, "watched", "2", top="")
    await engine.look()
    assert lanes() == first | {"watched/2-0", "watched/2-1"}
    folder.rename(tmp_path / "gone")
    await engine.look()
    async with asyncio.timeout(PATIENCE_S):
        while lanes() != first:
            await asyncio.sleep(0.01)


async def test_what_takes_little_time_runs_one_batch_at_a_time(
    tmp_path: Path, clock: FakeClock, meeting: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_server.engine.lanes.LEAST_S", 60.0)
    write_model(tmp_path, "watched", architecture='builder = "tests.engine.test_lanes:WatchedNet"')
    async with running(tmp_path, clock, max_batch=2) as engine:
        model = engine.resolve("watched", "1")
        meeting.threads.clear()
        async with HeldEngine(engine):
            calls = [asyncio.create_task(predict(engine, model, picture(seed))) for seed in range(4)]
            await settle()
        assert [(await call).batch_size for call in calls] == [2, 2, 2, 2]
        assert not lanes()
    assert meeting.threads == [2, 2]


@pytest.mark.parametrize("network", ["LockedNet", "ListeningNet"])
async def test_of_what_has_no_copy_like_it_one_batch_runs_at_a_time(
    tmp_path: Path, clock: FakeClock, network: str
) -> None:
    write_model(tmp_path, "watched", architecture=f'builder = "tests.engine.test_lanes:{network}"')
    async with running(tmp_path, clock) as engine:
        model = engine.resolve("watched", "1")
        answers = await asyncio.gather(*(predict(engine, model, picture(seed)) for seed in range(3)))
        assert not lanes()
    assert [answer.batch_size for answer in answers] == [1, 1, 1]


def test_a_twin_has_the_same_weights_and_modules_of_its_own(tmp_path: Path) -> None:
    version = load_version(write_model(tmp_path), torch.device("cpu"), max_batch=2, weights_dir=None)
    assert version.module is not None
    copied = twin(version.module)
    pairs = list(zip(version.module.modules(), copied.modules(), strict=True))
    assert not any(one is other for one, other in pairs)
    assert all(one is other for one, other in zip(version.module.parameters(), copied.parameters(), strict=True))
    packed = [(vars(one)["packed"], vars(other)["packed"]) for one, other in pairs if "packed" in vars(one)]
    assert packed
    assert all(one is other for one, other in packed)
