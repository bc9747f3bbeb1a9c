"""Versions that come, go, are retired and set aside under calls: every call ends in an answer or a plain refusal."""

from __future__ import annotations

import asyncio
import random
import shutil
import threading
from collections import Counter
from pathlib import Path

from tests.engine.test_engine import picture, predict
from tests.engine.test_registry import running
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine, Explain

ROUNDS = 8
VERSIONS = ("2", "3", "4", "5")


async def call(engine: Engine, version: str, ended: Counter[object], stop: asyncio.Event) -> None:
    pixels = picture()
    while not stop.is_set():
        try:
            model = engine.resolve("tiny", version)
            engine.check_circuit(model)
            with engine.kept(model):
                # As long as decoding takes in between.
                await asyncio.sleep(0)
                answer = await predict(engine, model, pixels, Explain("auto", "gradcam", None), lane="stream")
            ended[answer.cam is not None] += 1
        except ApiError as error:
            ended[error.reason] += 1
            await asyncio.sleep(0.001)


async def test_calls_under_churn_end_well_and_nothing_piles_up(tmp_path: Path) -> None:
    rng = random.Random(6)
    write_model(tmp_path, version="1")
    async with running(tmp_path) as engine:
        one_bytes = engine.resolve("tiny", "1").memory_bytes
    async with running(tmp_path, memory_bytes=4 * one_bytes) as engine:
        stop, ended, needed = asyncio.Event(), Counter(), Counter()
        calls = [asyncio.create_task(call(engine, version, ended, stop)) for version in VERSIONS for _ in range(2)]
        calls.append(asyncio.create_task(call(engine, "stable", needed, stop)))
        for _ in range(ROUNDS):
            for version in VERSIONS:
                folder = tmp_path / "tiny" / version
                if not folder.exists():
                    write_model(tmp_path, version=version, top="")
                elif rng.random() < 0.4:
                    shutil.rmtree(folder)
                elif rng.random() < 0.5:
                    (folder / "retired").touch()
                else:
                    (folder / "retired").unlink(missing_ok=True)
            await engine.look()
            await asyncio.sleep(0.02)
        stop.set()
        await asyncio.gather(*calls)
        # Nobody who asked for what stays noticed.
        assert set(needed) == {True}
        assert ended[True] > 0
        assert set(ended) <= {True, Reason.MODEL_UNAVAILABLE, Reason.MODEL_VERSION_NOT_FOUND}
        for version in VERSIONS:
            shutil.rmtree(tmp_path / "tiny" / version, ignore_errors=True)
        await engine.look()
        assert [model.version for model in engine.models()] == ["1"]
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("tiny/")]
        assert names == ["tiny/1"]
