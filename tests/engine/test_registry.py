"""Versions come and go with their folders while the engine serves."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from prometheus_client import REGISTRY
from structlog.testing import capture_logs
from tests.engine import tiny
from tests.engine.pools import until
from tests.engine.test_engine import HeldEngine, picture, predict, settle
from tests.engine.test_engine_faults import net
from tests.engine.test_golden import write_golden
from tests.engine.tiny import Gate, write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, EngineSettings

# Long enough that tests decide when the folders are looked at.
NEVER_S = 3600.0


@asynccontextmanager
async def running(models_dir: Path, **settings: object) -> AsyncIterator[Engine]:
    settings = {"look_interval_s": NEVER_S} | settings
    engine = Engine(EngineSettings((models_dir,), device="cpu", torch_threads=1, **settings))
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def refusal(engine: Engine, version: str, name: str = "tiny") -> Reason:
    with pytest.raises(ApiError) as refused:
        engine.resolve(name, version)
    return refused.value.reason


def state(engine: Engine, version: str) -> tuple[str, str | None]:
    (model,) = [model for model in engine.models() if model.key == ("tiny", version)]
    return model.state, model.reason


def retire(models_dir: Path, version: str) -> Path:
    marker = models_dir / "tiny" / version / "retired"
    marker.touch()
    return marker


async def test_a_folder_that_appears_is_loaded_while_the_others_serve(tmp_path: Path) -> None:
    write_model(tmp_path)
    tiny.HELD.shut()
    async with running(tmp_path) as engine:
        write_model(tmp_path, version="2", top="", architecture=HELD_NET)
        looking = asyncio.create_task(engine.look())
        await asyncio.to_thread(tiny.HELD.reached.wait)
        assert state(engine, "2") == ("loading", None)
        with pytest.raises(ApiError) as early:
            engine.resolve("tiny", "2")
        assert (early.value.reason, early.value.retry_after_s) == (Reason.MODEL_UNAVAILABLE, 5)
        await predict(engine, engine.resolve("tiny", "stable"), picture())
        tiny.HELD.free.set()
        await looking
        assert (await predict(engine, engine.resolve("tiny", "2"), picture())).probs.shape == (3,)


HELD_NET = 'builder = "tests.engine.tiny:HeldNet"'


async def test_a_version_whose_loading_hangs_holds_up_neither_the_start_nor_others(tmp_path: Path) -> None:
    write_model(tmp_path, version="1", architecture=HELD_NET)
    write_model(tmp_path, version="2", top="")
    tiny.HELD.shut()
    try:
        async with running(tmp_path, load_wait_s=0.1) as engine:
            assert state(engine, "1") == ("loading", None)
            await until(lambda: state(engine, "2") == ("ready", None))
            assert refusal(engine, "stable") is Reason.MODEL_UNAVAILABLE
            write_model(tmp_path, version="3", top="")
            looking = asyncio.create_task(engine.look())
            await until(lambda: len(engine.models()) == 3 and state(engine, "3") == ("ready", None))
            assert not looking.done()
            tiny.HELD.free.set()
            await looking
            assert (await predict(engine, engine.resolve("tiny", "stable"), picture())).probs.shape == (3,)
    finally:
        tiny.HELD.free.set()


async def test_a_version_whose_loading_hangs_is_given_up_when_its_folder_goes_and_at_the_end(tmp_path: Path) -> None:
    for version in "12":
        write_model(tmp_path, version=version, architecture=HELD_NET, top="")
    tiny.HELD.shut()
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1, look_interval_s=0.01))
    try:
        starting = asyncio.create_task(engine.start())
        await asyncio.to_thread(tiny.HELD.reached.wait)
        for version in "12":
            shutil.rmtree(tmp_path / "tiny" / version)
        await starting
        assert engine.models() == []
        tiny.HELD.reached.clear()
        write_model(tmp_path, version="3", architecture=HELD_NET, top="")
        await asyncio.to_thread(tiny.HELD.reached.wait)
        await engine.close()
    finally:
        tiny.HELD.free.set()


async def test_the_folders_are_looked_at_again_and_again(tmp_path: Path) -> None:
    async with running(tmp_path / "models", look_interval_s=0.01) as engine:
        draft = write_model(tmp_path / "draft")
        (tmp_path / "models").mkdir()
        draft.parent.rename(tmp_path / "models" / "tiny")
        await until(lambda: [model.state for model in engine.models()] == ["ready"])
        shutil.rmtree(tmp_path / "models" / "tiny")
        write_model(tmp_path / "models", "other")
        await until(lambda: [(model.name, model.state) for model in engine.models()][-1:] == [("tiny", "ready")])
        await until(lambda: [model.name for model in engine.models()] == ["other", "tiny"])


async def test_a_hidden_folder_is_no_version(tmp_path: Path) -> None:
    async with running(tmp_path) as engine:
        write_model(tmp_path, version=".2")
        await engine.look()
        assert engine.models() == []


async def test_an_alias_moves_to_a_version_that_comes_when_it_can_answer(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path) as engine:
        write_model(tmp_path, version="2", weights='file = "missing"')
        write_model(tmp_path, version="3")
        looking = asyncio.create_task(engine.look())
        while len(engine.models()) < 3:
            assert engine.resolve("tiny", "stable").version == "1"
            await asyncio.sleep(0)
        await looking
        assert engine.resolve("tiny", "stable").version == "3"


async def test_a_changed_version_serves_what_was_loaded_of_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    async with running(tmp_path) as engine:
        before = engine.resolve("tiny", "1")
        (folder / "model.toml").write_text((folder / "model.toml").read_text() + "\n[calibration]\ntemperature = 9\n")
        with capture_logs() as logs:
            await engine.look()
            await engine.look()
        assert [log["event"] for log in logs] == ["files of a version changed; what was loaded of it serves on"]
        assert engine.resolve("tiny", "1") is before


async def test_a_version_that_could_not_be_loaded_is_tried_again_when_its_files_change(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    labels = (folder / "labels.json").read_text()
    (folder / "labels.json").unlink()
    async with running(tmp_path) as engine:
        assert state(engine, "1") == ("unavailable", "the labels file cannot be read")
        (folder / "labels.json").write_text(labels)
        await engine.look()
        assert state(engine, "1") == ("ready", None)


async def test_a_version_does_not_come_back_with_other_content(tmp_path: Path) -> None:
    write_model(tmp_path, top="")
    async with running(tmp_path) as engine:
        shutil.rmtree(tmp_path / "tiny")
        await engine.look()
        assert refusal(engine, "1") is Reason.MODEL_NOT_FOUND
        folder = write_model(tmp_path, top="", weights="random = 1")
        await engine.look()
        reason = "this version had other content before: give what is new a version of its own"
        assert state(engine, "1") == ("unavailable", reason)
        shutil.rmtree(folder)
        write_model(tmp_path, top="")
        await engine.look()
        assert state(engine, "1") == ("ready", None)


async def test_a_version_that_is_gone_is_unloaded_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collected: list[None] = []
    monkeypatch.setattr(gc, "collect", lambda: collected.append(None))
    write_model(tmp_path)
    async with running(tmp_path) as engine:
        folder = write_model(tmp_path, version="2", top="")
        await engine.look()
        model = engine.resolve("tiny", "2")
        await predict(engine, model, picture())
        labels = {"model": "tiny", "version": "2"}
        circuit = {"part": "engine", "name": "tiny/2"}
        assert REGISTRY.get_sample_value("camserve_engine_queue", labels) == 0
        assert REGISTRY.get_sample_value("camserve_circuit_state", circuit) == 0
        module, unloaded = weakref.ref(model.module), []
        engine.on_unload = unloaded.append
        del model
        shutil.rmtree(folder)
        await engine.look()
        assert refusal(engine, "2") is Reason.MODEL_VERSION_NOT_FOUND
        assert "tiny/2" not in {thread.name for thread in threading.enumerate()}
        assert REGISTRY.get_sample_value("camserve_engine_queue", labels) is None
        assert REGISTRY.get_sample_value("camserve_circuit_state", circuit) is None
        # Nobody had to look for it.
        assert collected == []
        assert (module(), unloaded) == (None, [("tiny", "2")])
        assert engine.resolve("tiny", "stable").version == "1"


async def test_a_call_under_way_ends_before_its_version_is_unloaded(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, version="2", top="")
    async with running(tmp_path) as engine:
        model = engine.resolve("tiny", "2")
        with engine.kept(model):
            async with HeldEngine(engine):
                call = asyncio.create_task(predict(engine, model, picture(), lane="stream"))
                await settle()
                retire(tmp_path, "2")
                looking = asyncio.create_task(engine.look())
                await until(lambda: state(engine, "2")[0] == "retired")
            assert (await call).probs.shape == (3,)
            assert not looking.done()
        await looking
        with pytest.raises(ApiError) as late:
            await predict(engine, model, picture())
        assert late.value.reason is Reason.MODEL_UNAVAILABLE
        with pytest.raises(ApiError):
            engine.kept(model)


async def test_a_version_that_an_alias_leads_to_outlives_its_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    async with running(tmp_path) as engine:
        shutil.rmtree(folder)
        with capture_logs() as logs:
            await engine.look()
            await engine.look()
        assert [log["event"] for log in logs] == ["the folder of a version in use is gone; the version serves on"]
        await predict(engine, engine.resolve("tiny", "stable"), picture())
        engine.protect(lambda model: False)
        await engine.look()
        assert engine.models() == []


async def test_versions_outlive_a_models_folder_that_is_away(tmp_path: Path) -> None:
    write_model(tmp_path / "models", top="")
    async with running(tmp_path / "models") as engine:
        (tmp_path / "models").rename(tmp_path / "away")
        await engine.look()
        await predict(engine, engine.resolve("tiny", "1"), picture())
        (tmp_path / "away").rename(tmp_path / "models")
        with capture_logs() as logs:
            await engine.look()
        assert (logs, state(engine, "1")) == ([], ("ready", None))


async def test_a_retired_version_is_listed_and_answers_no_longer_even_after_a_restart(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, version="2", top='aliases = ["next"]')
    marker = retire(tmp_path, "2")
    async with running(tmp_path) as engine:
        assert state(engine, "2") == ("retired", None)
        for name in ("2", "next"):
            assert refusal(engine, name) is Reason.MODEL_VERSION_NOT_FOUND
        assert "tiny/2" not in {thread.name for thread in threading.enumerate()}
        marker.unlink()
        await engine.look()
        assert engine.resolve("tiny", "next").version == "2"
        retire(tmp_path, "2")
        retire(tmp_path, "1")
        await engine.look()
        assert refusal(engine, "stable") is Reason.MODEL_VERSION_NOT_FOUND
        assert {model.labels[0].id for model in engine.models()} == {"ant"}


async def test_a_version_in_a_folder_that_is_read_only_is_retired_from_another(tmp_path: Path) -> None:
    write_model(tmp_path / "bundled")
    marker = tmp_path / "own" / "tiny" / "1" / "retired"
    marker.parent.mkdir(parents=True)
    marker.touch()
    engine = Engine(EngineSettings((tmp_path / "bundled", tmp_path / "own"), device="cpu", torch_threads=1))
    await engine.start()
    assert state(engine, "1") == ("retired", None)
    await engine.close()


async def test_a_version_that_hangs_is_unloaded_and_can_be_loaded_again(tmp_path: Path) -> None:
    write_model(tmp_path, architecture='builder = "tests.engine.tiny:FaultyNet"')
    gate = Gate()
    async with running(tmp_path, pass_deadline_s=0.1) as engine:
        model = engine.resolve("tiny", "1")

        def fault(_, scores):
            gate.reached.set()
            gate.free.wait()
            return scores

        net(model).fault = fault
        with pytest.raises(ApiError) as given_up, engine.kept(model):
            await predict(engine, model, picture())
        assert given_up.value.reason is Reason.TIMEOUT_EXCEEDED
        marker = retire(tmp_path, "1")
        await engine.look()
        marker.unlink()
        await engine.look()
        again = engine.resolve("tiny", "1")
        assert (await predict(engine, again, picture())).batch_size == 1
        gate.free.set()
        await until(lambda: [thread.name for thread in threading.enumerate()].count("tiny/1") == 1)
        assert engine.works(again)


async def test_golden_inputs_are_run_anew_when_they_are_asked_for(tmp_path: Path) -> None:
    folder = write_golden(tmp_path)
    async with running(tmp_path) as engine:
        assert engine.resolve("tiny", "1").golden == "passed"
        bias = engine.resolve("tiny", "1").module.head.bias.data
        known = bias.clone()
        bias += torch.tensor([0.0, 1, 2])
        checked = await engine.rerun_golden("tiny", "stable")
        assert (checked.golden, checked.golden_reason[:7]) == ("failed", "case 1:")
        assert engine.resolve("tiny", "stable").golden == "failed"
        bias.copy_(known)
        assert (await engine.rerun_golden("tiny", "1")).golden == "passed"
        (folder / "model.toml").unlink()
        assert (await engine.rerun_golden("tiny", "1")).golden_reason == "model.toml cannot be read"
        assert engine.works(engine.resolve("tiny", "1"))


async def test_a_device_that_fails_while_a_version_loads_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("CUDA error")

    write_model(tmp_path)
    monkeypatch.setattr("camserve_server.engine.place.prepare_thread", fails)
    async with running(tmp_path) as engine:
        assert state(engine, "1") == ("unavailable", "loading failed (RuntimeError)")
        await until(lambda: "tiny/1" not in {thread.name for thread in threading.enumerate()})
