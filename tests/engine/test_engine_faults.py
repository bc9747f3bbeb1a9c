"""A model that fails is left alone and tried again; a picture that fails alone, or a short memory, opens nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog
import torch
from numpy.typing import NDArray
from tests.clock import FakeClock
from tests.engine.test_engine import HeldEngine, picture, predict, settle
from tests.engine.tiny import SIDE, FaultyNet, write_model
from torch import Tensor

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.batch_limit import BatchLimit
from camserve_server.engine.engine import Engine, EngineSettings, Explain, ModelFailedError, Prediction
from camserve_server.engine.model import ModelVersion

Fault = Callable[[Tensor, Tensor], Tensor]
WHITE = np.full((SIDE, SIDE, 3), 255, np.uint8)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Without it each failure is printed with the tensors of its frames."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def engine(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Engine]:
    write_model(tmp_path)
    write_model(tmp_path, "faulty", architecture='builder = "tests.engine.tiny:FaultyNet"')
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1, max_batch=8), monotonic=clock.monotonic)
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
def faulty(engine: Engine) -> ModelVersion:
    return engine.resolve("faulty", "1")


def net(model: ModelVersion) -> FaultyNet:
    assert isinstance(model.module, FaultyNet)
    return model.module


def raises(error: Callable[[], BaseException]) -> Fault:
    def fault(x: Tensor, scores: Tensor) -> Tensor:
        raise error()

    return fault


def on_white(fault: Fault) -> Fault:
    """Only where a white picture is in the batch."""
    return lambda x, scores: fault(x, scores) if bool(white_rows(x).any()) else scores


def white_rows(x: Tensor) -> Tensor:
    return x.amin(dim=(1, 2, 3)) >= 1


def nan(x: Tensor, scores: Tensor) -> Tensor:
    return scores * torch.nan


def nan_for_white(x: Tensor, scores: Tensor) -> Tensor:
    return torch.where(white_rows(x)[:, None], torch.inf, scores)


def short_above(pictures: int) -> Fault:
    """The device's memory suffices for so many pictures."""

    def fault(x: Tensor, scores: Tensor) -> Tensor:
        if len(x) > pictures:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scores

    return fault


ALL_FAULTS = pytest.mark.parametrize(
    "fault",
    [
        raises(lambda: RuntimeError("broken")),
        raises(lambda: SystemExit(1)),
        raises(KeyboardInterrupt),
        raises(lambda: torch.OutOfMemoryError("CUDA out of memory")),
        nan,
    ],
    ids=["exception", "exit", "interrupt", "out-of-memory", "nan"],
)


async def error(engine: Engine, model: ModelVersion, pixels: NDArray[np.uint8] | None = None) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await predict(engine, model, picture() if pixels is None else pixels)
    return caught.value


async def opened(engine: Engine, model: ModelVersion) -> None:
    for _ in range(3):
        assert isinstance(await error(engine, model), ModelFailedError)
    assert not engine.works(model)


async def together(engine: Engine, model: ModelVersion, *pictures: NDArray[np.uint8]) -> list[object]:
    """Returns what pictures that run in one batch got."""
    async with HeldEngine(engine):
        calls = [asyncio.create_task(predict(engine, model, one)) for one in pictures]
        await settle()
    return await asyncio.gather(*calls, return_exceptions=True)


@ALL_FAULTS
async def test_a_model_that_fails_is_left_alone_and_serves_again_once_it_works(
    engine: Engine, faulty: ModelVersion, clock: FakeClock, fault: Fault
) -> None:
    net(faulty).fault = fault
    await opened(engine, faulty)
    ran = len(net(faulty).batches)
    with pytest.raises(ApiError) as refused:
        engine.check_circuit(faulty)
    assert (refused.value.reason, refused.value.retry_after_s) == (Reason.CIRCUIT_OPEN, 1)
    assert (await error(engine, faulty)).reason is Reason.CIRCUIT_OPEN
    assert len(net(faulty).batches) == ran
    clock.advance(1)
    assert isinstance(await error(engine, faulty), ModelFailedError)
    refusal = await error(engine, faulty)
    assert (refusal.reason, refusal.retry_after_s) == (Reason.CIRCUIT_OPEN, 2)
    net(faulty).fault = None
    clock.advance(2)
    assert (await predict(engine, faulty, picture())).probs.sum() == pytest.approx(1)
    assert engine.works(faulty)
    engine.check_circuit(faulty)


async def test_a_model_that_fails_touches_no_other(engine: Engine, faulty: ModelVersion) -> None:
    net(faulty).fault = raises(lambda: RuntimeError("broken"))
    await opened(engine, faulty)
    other = engine.resolve("tiny", "1")
    engine.check_circuit(other)
    assert (await predict(engine, other, picture())).batch_size == 1
    assert engine.works(other)


async def test_of_twenty_callers_after_the_pause_one_tries(
    engine: Engine, faulty: ModelVersion, clock: FakeClock
) -> None:
    net(faulty).fault = raises(lambda: RuntimeError("broken"))
    await opened(engine, faulty)
    clock.advance(1)
    net(faulty).fault = None
    answers = await together(engine, faulty, *[picture()] * 20)
    assert sum(isinstance(answer, Prediction) for answer in answers) == 1
    assert {answer.reason for answer in answers if isinstance(answer, ApiError)} == {Reason.CIRCUIT_OPEN}
    assert engine.works(faulty)


async def test_a_caller_who_leaves_hands_the_try_on(engine: Engine, faulty: ModelVersion, clock: FakeClock) -> None:
    net(faulty).fault = raises(lambda: RuntimeError("broken"))
    await opened(engine, faulty)
    clock.advance(1)
    net(faulty).fault = None
    async with HeldEngine(engine):
        leaving = asyncio.create_task(predict(engine, faulty, picture()))
        await settle()
        assert (await error(engine, faulty)).reason is Reason.CIRCUIT_OPEN
        leaving.cancel()
        await asyncio.wait([leaving])
        next_one = asyncio.create_task(predict(engine, faulty, picture()))
        await settle()
    assert isinstance(await next_one, Prediction)


async def test_those_who_wait_for_a_model_that_is_left_alone_are_refused_at_once(
    engine: Engine, faulty: ModelVersion
) -> None:
    full, free = 0, threading.Event()

    def fault(x: Tensor, scores: Tensor) -> Tensor:
        nonlocal full
        full += len(x) == 8
        # The device may have taken a fourth batch before the third one's end was noted, but no fifth.
        if full == 4:
            free.wait()
        raise RuntimeError("broken")

    net(faulty).fault = fault
    del net(faulty).batches[:]
    async with HeldEngine(engine):
        calls = [asyncio.create_task(predict(engine, faulty, picture())) for _ in range(40)]
        await settle()
    for waiting in calls[32:]:
        with pytest.raises(ApiError) as refused:
            await waiting
        assert refused.value.reason is Reason.CIRCUIT_OPEN
    free.set()
    answers = await asyncio.gather(*calls[:32], return_exceptions=True)
    assert all(isinstance(answer, ModelFailedError) for answer in answers[:24])
    assert all(isinstance(answer, ApiError) for answer in answers[24:])
    # A batch that fails costs one run more, of a grey picture, and not one for each of its pictures.
    assert net(faulty).batches == [8, 1] * full


@pytest.mark.parametrize(
    "fault",
    [
        on_white(raises(lambda: RuntimeError("poison"))),
        on_white(raises(lambda: torch.OutOfMemoryError("CUDA out of memory"))),
        nan_for_white,
    ],
    ids=["exception", "out-of-memory", "not-finite"],
)
@pytest.mark.parametrize("companions", [0, 2])
async def test_a_picture_that_fails_alone_opens_nothing(
    engine: Engine, faulty: ModelVersion, fault: Fault, companions: int
) -> None:
    net(faulty).fault = fault
    for _ in range(4):
        *good, poison = await together(engine, faulty, *[picture()] * companions, WHITE)
        assert all(isinstance(answer, Prediction) for answer in good)
        assert isinstance(poison, ApiError)
        assert (poison.reason, isinstance(poison, ModelFailedError)) == (Reason.INTERNAL, False)
    assert engine.works(faulty)
    assert isinstance(await predict(engine, faulty, picture()), Prediction)


async def test_a_map_that_is_not_finite_is_not_served(engine: Engine, faulty: ModelVersion) -> None:
    assert faulty.module is not None
    body = faulty.module.get_submodule("body")
    hook = body.register_forward_hook(lambda module, args, output: output * torch.nan)
    # The scores stay good.
    net(faulty).fault = lambda x, scores: torch.nan_to_num(scores)
    with pytest.raises(ApiError) as refused:
        await predict(engine, faulty, picture(), Explain("body", "gradcam", None))
    assert refused.value.reason is Reason.INTERNAL
    hook.remove()
    net(faulty).fault = None
    assert (await predict(engine, faulty, picture(), Explain("body", "gradcam", None))).cam is not None


async def test_a_batch_that_is_too_large_for_the_memory_is_answered_in_halves(
    engine: Engine, faulty: ModelVersion
) -> None:
    net(faulty).fault = short_above(3)
    del net(faulty).batches[:]
    answers = await together(engine, faulty, *(picture(seed) for seed in range(8)))
    assert net(faulty).batches == [8, 4, 2, 2, 4, 2, 2]
    alone = [await predict(engine, faulty, picture(seed)) for seed in range(8)]
    for answer, expected in zip(answers, alone, strict=True):
        assert isinstance(answer, Prediction)
        assert np.allclose(answer.probs, expected.probs, atol=1e-5)
    assert engine.works(faulty)


async def test_a_memory_that_keeps_falling_short_makes_smaller_batches_for_a_while(
    engine: Engine, faulty: ModelVersion, clock: FakeClock
) -> None:
    net(faulty).fault = short_above(3)
    for _ in range(2):
        await together(engine, faulty, *[picture()] * 8)
    del net(faulty).batches[:]
    await together(engine, faulty, *[picture()] * 8)
    assert net(faulty).batches == [2, 2, 2, 2]
    net(faulty).fault = None
    clock.advance(300)
    await predict(engine, faulty, picture())
    del net(faulty).batches[:]
    await together(engine, faulty, *[picture()] * 8)
    assert net(faulty).batches == [8]


def test_a_batch_limit_falls_on_the_second_shortage_within_a_minute_and_never_below_one(clock: FakeClock) -> None:
    limit = BatchLimit(8, clock.monotonic)
    seen = []
    for after_s, pictures in ((0, 8), (61, 8), (59, 8), (1, 4), (1, 2), (1, 1)):
        clock.advance(after_s)
        limit.fell_short(pictures)
        seen.append(limit.pictures)
    assert seen == [8, 8, 4, 2, 1, 1]
    clock.advance(299)
    assert limit.pictures == 1
    clock.advance(1)
    assert limit.pictures == 8
    # Whether it recurs is watched for a minute after the limit was lifted.
    limit.fell_short(8)
    assert limit.pictures == 4


@pytest.mark.parametrize(
    ("ms", "pictures", "filling"),
    [
        pytest.param(1, 16, 20, id="quick: all that may"),
        pytest.param(25, 8, 0, id="slow: what takes 0.2 s"),
        pytest.param(60, 4, 0, id="slower: four"),
        pytest.param(2_000, 4, 0, id="the slowest: four"),
    ],
)
def test_a_batch_that_would_take_long_is_smaller(clock: FakeClock, ms: int, pictures: int, filling: int) -> None:
    limit = BatchLimit(16, clock.monotonic)
    assert (limit.pictures, limit.filling) == (16, None)
    limit.took(16, 16 * ms / 1000)
    assert (limit.pictures, limit.filling) == (pictures, filling)


def test_one_slow_batch_does_not_decide_for_long(clock: FakeClock) -> None:
    limit = BatchLimit(16, clock.monotonic)
    limit.took(1, 1.0)
    assert limit.pictures == 4
    for _ in range(60):
        limit.took(4, 0.012)
    assert limit.pictures == 16


def test_a_slow_model_short_of_memory_runs_fewer_than_four(clock: FakeClock) -> None:
    limit = BatchLimit(8, clock.monotonic)
    limit.took(4, 8.0)
    for _ in range(2):
        limit.fell_short(4)
    assert limit.pictures == 2
