"""`camserve models calibrate` on a small model whose right temperature is known."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import camserve_program, stack_environment
from tests.engine.tiny import CLASSES, SIDE, write_model

from camserve_server.base.config import Settings, load
from camserve_server.base.errors import OperatorError
from camserve_server.cli.calibrate import calibrate
from camserve_server.engine.calibration import softmax
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.manifest import read_manifest
from camserve_server.engine.model import ModelVersion, load_version

# The command loads a model and starts workers, and one test a whole stack.
pytestmark = pytest.mark.timeout(180)

RIGHT = 2.0
PICTURES = 400


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain pictures, each in the folder of a class drawn from the probabilities that tiny 1 should state."""
    folder = tmp_path_factory.mktemp("pictures")
    model = load_version(
        write_model(tmp_path_factory.mktemp("models")), torch.device("cpu"), max_batch=4, weights_dir=None
    )
    rng = np.random.default_rng(5)
    for class_id in CLASSES:
        (folder / class_id).mkdir()
    for number in range(PICTURES):
        pixels = np.full((SIDE, SIDE, 3), rng.integers(0, 256, 3), np.uint8)
        scores = np.log(model.run([pixels], [None])[0].probs.double().numpy())[None]
        class_id = rng.choice(CLASSES, p=softmax(scores, RIGHT)[0])
        Image.fromarray(pixels).save(folder / class_id / f"{number:03}.png")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_model(tmp_path / "models")
    return load(data_dir=tmp_path, torch_threads=1, imaging_workers=1)


@pytest.fixture
def said() -> list[str]:
    return []


def run(settings: Settings, said: list[str], pictures: Path, *wanted: str, version: str = "1") -> None:
    calibrate(settings, "tiny", version, pictures, *wanted, say=said.append, warn=said.append)


def figures(said: list[str], name: str) -> list[float]:
    line = next(line for line in said if line.startswith(name))
    return [float(figure.rstrip("%")) for figure in line.removeprefix(name).split()]


async def test_a_new_version_has_the_temperature_and_serves(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path
) -> None:
    await asyncio.to_thread(run, settings, said, pictures, "1-calibrated")
    before, after = figures(said, "temperature")
    assert before == 1
    assert after == pytest.approx(RIGHT, rel=0.25)
    for name in ("NLL", "ECE, 15 bins"):
        before, after = figures(said, name)
        assert after < before
    assert len(set(figures(said, "accuracy"))) == 1
    manifest = read_manifest(tmp_path / "models" / "tiny" / "1-calibrated")
    assert (manifest.calibration.version, manifest.aliases) == ("2", ())
    engine = Engine(EngineSettings((tmp_path / "models",), device="cpu", torch_threads=1))
    await engine.start()
    try:
        assert engine.resolve("tiny", "stable").version == "1"
        served = engine.resolve("tiny", "1-calibrated")
        assert (served.calibration_version, served.temperature) == ("2", manifest.calibration.temperature)
    finally:
        await engine.close()


def test_a_version_in_bfloat16_is_calibrated_in_float32_and_tried_as_it_will_serve(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_server.engine.model.has_bfloat16", lambda device: True)
    write_model(tmp_path / "models", version="low", top='precision = "bfloat16"')
    loaded: list[tuple[str, str]] = []

    def noted(folder: Path, *arguments: Any, **options: Any) -> ModelVersion:
        model = load_version(folder, *arguments, **options)
        loaded.append((model.version, model.precision))
        return model

    monkeypatch.setattr("camserve_server.cli.calibrate.load_version", noted)
    run(settings, said, pictures, "low-calibrated", version="low")
    assert loaded == [("low", "float32"), ("low-calibrated", "bfloat16")]


def test_without_a_new_version_nothing_is_written(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path
) -> None:
    run(settings, said, pictures)
    assert said[-1].startswith("Nothing is written")
    assert [path.name for path in (tmp_path / "models").rglob("*") if path.is_dir()] == ["tiny", "1"]


def test_pictures_that_cannot_be_decoded_are_told_and_left_out(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path
) -> None:
    with_others = tmp_path / "pictures"
    shutil.copytree(pictures, with_others)
    (with_others / "ant" / "notes.txt").write_text("not a picture")
    (with_others / "ant" / "empty.png").touch()
    run(settings, said, with_others)
    assert said[0].startswith("2 pictures are left out, such as\n")
    assert f"{with_others / 'ant' / 'notes.txt'}: The bytes are no image format known here." in said[0]
    assert said[1].endswith(f"on {PICTURES} pictures")


def test_classes_without_pictures_are_told(settings: Settings, said: list[str], pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(pictures, tmp_path / "pictures")
    shutil.rmtree(tmp_path / "pictures" / "cat")
    run(settings, said, tmp_path / "pictures")
    assert "classes without pictures: cat" in said


def test_a_calibration_that_is_as_good_already_is_kept(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path
) -> None:
    run(settings, said, pictures, "2")
    with pytest.raises(OperatorError, match="nothing is written: the temperature in force does as well"):
        run(settings, said, pictures, "3", version="2")
    assert not (tmp_path / "models" / "tiny" / "3").exists()


@pytest.mark.parametrize(
    ("version", "wanted", "why"),
    [
        ("9", [], "tiny has no version 9, only 1"),
        ("1", ["1"], "tiny 1 is there already, and versions do not change"),
        ("1", ["../2"], "../2 cannot name a version"),
        ("1", ["stable"], "stable cannot name a version: stable is an alias of every model"),
        ("1", ["2", "1"], "there is a calibration 1 of the model already"),
    ],
)
def test_what_does_not_go_is_refused_before_any_work(
    settings: Settings, said: list[str], pictures: Path, version: str, wanted: list[str], why: str
) -> None:
    with pytest.raises(OperatorError, match=why):
        run(settings, said, pictures, *wanted, version=version)
    assert not said


def test_a_version_that_cannot_be_loaded_is_not_calibrated(
    settings: Settings, said: list[str], pictures: Path, tmp_path: Path
) -> None:
    write_model(tmp_path / "models", version="2", weights='file = "missing.safetensors"')
    with pytest.raises(OperatorError, match="tiny 2 cannot be loaded: the weights file is missing"):
        run(settings, said, pictures, version="2")


def test_too_few_pictures_are_refused(settings: Settings, said: list[str], pictures: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    for path in sorted(pictures.glob("*/*.png"))[::10]:
        (few / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, few / path.parent.name)
    with pytest.raises(OperatorError, match="40 pictures are too few: 100 are needed"):
        run(settings, said, few)


def test_the_command_makes_a_version_whose_answers_name_its_calibration(
    pictures: Path, tmp_path: Path, make_stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "stack0"
    write_model(data_dir / "models")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parents[2]}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    done = subprocess.run(
        [
            camserve_program(),
            "models",
            "calibrate",
            "tiny",
            "1",
            pictures,
            "--as",
            "2",
            "--calibration-version",
            "june",
        ],
        env=stack_environment(data_dir),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"tiny 1, calibration 1, on {PICTURES} pictures\n")
    stack = make_stack()
    out = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), "red").save(out, "PNG")
    image = {"bytes": base64.b64encode(out.getvalue()).decode()}
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=30) as api:
        old, new = (
            api.post("/v1/infer", json={"model": "tiny", "model_version": version, "image": image}).json()
            for version in ("stable", "2")
        )
    assert (old["model_version"], old["calibration_version"]) == ("1", "1")
    assert (new["model_version"], new["calibration_version"]) == ("2", "june")
    assert [each["id"] for each in new["classes"]] == [each["id"] for each in old["classes"]]
    assert new["classes"][0]["prob"] < old["classes"][0]["prob"]
