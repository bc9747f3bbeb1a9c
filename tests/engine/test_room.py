"""Versions that do not fit into the memory together make room for each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.clock import FakeClock
from tests.engine.test_engine import picture, predict
from tests.engine.test_registry import NEVER_S, refusal, running, state
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, EngineSettings


async def test_the_version_used_least_lately_makes_room_and_comes_back_on_demand(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    async with running(tmp_path) as engine:
        one = engine.resolve("tiny", "1").memory_bytes
    assert one > 1000
    write_model(tmp_path, version="2", top="")
    write_model(tmp_path, version="3", top="")
    async with running(tmp_path, memory_bytes=3 * one) as engine:
        for version in ("2", "3", "1", "2"):
            with engine.kept(model := engine.resolve("tiny", version)):
                await predict(engine, model, picture())
        write_model(tmp_path, version="4", top="")
        await engine.look()
        assert [model.state for model in engine.models()] == ["ready", "ready", "loading", "ready"]
        aside = engine.models()[2]
        assert (aside.module, len(aside.labels)) == (None, 3)
        with pytest.raises(ApiError) as refused:
            engine.resolve("tiny", "3")
        assert (refused.value.reason, refused.value.retry_after_s) == (Reason.MODEL_UNAVAILABLE, 1)
        await engine.look()
        # The one with the alias stays, although it was used before the others.
        assert [model.state for model in engine.models()] == ["ready", "loading", "ready", "ready"]
        await predict(engine, engine.resolve("tiny", "3"), picture())


async def test_a_version_waits_for_memory_while_the_others_are_needed(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path, version="2", top="")
    async with running(tmp_path, memory_bytes=1) as engine:
        # The one that is needed is loaded whatever it takes.
        assert [model.state for model in engine.models()] == ["ready", "unavailable"]
        assert (
            state(engine, "2")[1]
            == "it takes 0.0 MB of memory, and models may take 0.0, of which versions in use take 0.0"
        )
        for _ in range(2):
            assert refusal(engine, "2") is Reason.MODEL_UNAVAILABLE
            await engine.look()
        # Once it is needed nobody has to ask for it.
        engine.protect(lambda model: model.version == "2")
        await engine.look()
        assert [model.state for model in engine.models()] == ["loading", "ready"]


def told(engine: Engine, version: str) -> tuple[Reason, object, float | None]:
    with pytest.raises(ApiError) as refused:
        engine.resolve("tiny", version)
    return refused.value.reason, refused.value.details.get("why"), refused.value.retry_after_s


async def test_a_version_for_which_there_never_is_room_says_so_and_nobody_is_set_aside_for_it(tmp_path: Path) -> None:
    for version in "12":
        write_model(tmp_path, version=version, top="")
    async with running(tmp_path, memory_bytes=200_000) as engine:
        write_model(tmp_path, version="3", top="", architecture='builder = "tests.engine.tiny:HeavyNet"')
        folder = write_model(tmp_path, version="4", top="", weights='file = "weights.safetensors"')
        (folder / "weights.safetensors").write_bytes(bytes(1_000_000))
        await engine.look()
        for _ in range(2):
            assert [model.state for model in engine.models()] == ["ready", "ready", "unavailable", "unavailable"]
            for version, megabytes in (("3", "0.4"), ("4", "1.0")):
                why = f"it takes {megabytes} MB of memory, and models may take 0.2"
                assert told(engine, version) == (Reason.MODEL_UNAVAILABLE, why, 30)
                assert state(engine, version) == ("unavailable", why)
            await engine.look()
        # By the size of its file alone: what it holds was not looked at.
        (folder / "weights.safetensors").write_bytes(b"nothing")
        await engine.look()
        assert state(engine, "4") == ("unavailable", "the weights file is not safetensors")
        engine.protect(lambda model: model.version == "3")
        assert told(engine, "3")[:2] == (Reason.MODEL_UNAVAILABLE, "the version is loaded on demand")
        await engine.look()
        assert state(engine, "3") == ("ready", None)


async def test_versions_that_are_asked_for_in_turn_do_not_only_load(tmp_path: Path) -> None:
    for version in "12":
        write_model(tmp_path, version=version, top="")
    clock = FakeClock()
    settings = EngineSettings((tmp_path,), device="cpu", torch_threads=1, memory_bytes=10_000, look_interval_s=NEVER_S)
    engine = Engine(settings, monotonic=clock.monotonic)
    await engine.start()
    assert [model.state for model in engine.models()] == ["loading", "ready"]
    for stays, states in ((0, ["ready", "loading"]), (0, ["ready", "loading"]), (2, ["loading", "ready"])):
        clock.advance(stays)
        aside = next(model.version for model in engine.models() if model.state == "loading")
        assert refusal(engine, aside) is Reason.MODEL_UNAVAILABLE
        await engine.look()
        assert [model.state for model in engine.models()] == states
    await engine.close()
