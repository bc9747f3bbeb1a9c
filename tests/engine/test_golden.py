"""Golden inputs tell a version that answers as it should from one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.engine.tiny import SIDE, write_model

from camserve_server.engine.inference import Explain
from camserve_server.engine.manifest import read_manifest
from camserve_server.engine.model import ModelVersion, load_version, with_golden

SHAPES = Path(__file__).parents[2] / "models" / "shapes"


def load(folder: Path) -> ModelVersion:
    return load_version(folder, torch.device("cpu"), max_batch=2, weights_dir=None)


def write_golden(models_dir: Path, **changes: object) -> Path:
    """Writes a model with one golden input, answers taken from the model itself, then changed."""
    folder = write_model(models_dir, golden='file = "golden.json"')
    (folder / "golden.json").write_text('{"cases": []}')
    model = load(folder)
    assert (model.golden, model.golden_reason) == ("none", None)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    Image.fromarray(pixels[:, : SIDE // 2]).save(folder / "narrow.png")
    outcome = model.run([pixels], [Explain("body", "gradcam", None)])[0]
    raw = outcome.cam.numpy()
    np.save(folder / "map.npy", raw)
    np.save(folder / "other.npy", raw + 0.002)
    np.save(folder / "small.npy", raw[1:])
    np.save(folder / "objects.npy", np.array([{}]), allow_pickle=True)
    probs = {label.id: float(prob) for label, prob in zip(model.labels, outcome.probs, strict=True)}
    case = {"image": "picture.png", "top": max(probs, key=probs.get), "probs": probs, "cam": "map.npy"}
    (folder / "golden.json").write_text(json.dumps({"cases": [case | changes]}))
    return folder


def test_a_version_that_answers_as_it_should_passes(tmp_path: Path) -> None:
    model = load(write_golden(tmp_path))
    assert (model.state, model.golden, model.golden_reason) == ("ready", "passed", None)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"top": "nobody"}, "case 1: another top class"),
        ({"probs": {"ant": 0.9}}, "case 1: a probability is off"),
        ({"probs": {"ant": float("nan")}}, "case 1: a probability is off"),
        ({"probs": {"elk": 0.1}}, "case 1: a class that the model does not have"),
        ({"cam": "other.npy"}, "case 1: the heatmap is off"),
        ({"cam": "small.npy"}, "case 1: the heatmap is off"),
        ({"image": "narrow.png", "probs": {}}, "case 1: the heatmap is off"),
        ({"cam": "objects.npy"}, "the golden inputs cannot be run (ValueError)"),
        ({"cam": "missing.npy"}, "the golden inputs cannot be run (FileNotFoundError)"),
        ({"image": "../picture.png"}, "the golden inputs cannot be run (ValidationError)"),
        ({"image": "map.npy"}, "the golden inputs cannot be run (ApiError)"),
    ],
)
def test_a_version_that_answers_otherwise_fails_and_serves(
    tmp_path: Path, changes: dict[str, object], fault: str
) -> None:
    model = load(write_golden(tmp_path, **changes))
    assert (model.state, model.golden, model.golden_reason) == ("ready", "failed", fault)


@pytest.mark.parametrize("raised", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_version_that_would_end_the_program_fails_its_golden_inputs(
    tmp_path: Path, raised: type[BaseException]
) -> None:
    folder = write_golden(tmp_path)
    model = load(folder)

    def end(*_: object) -> None:
        raise raised

    model.module.register_forward_pre_hook(end)
    checked = with_golden(folder, read_manifest(folder), model)
    assert (checked.golden, checked.golden_reason) == ("failed", f"the golden inputs cannot be run ({raised.__name__})")


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_bundled_model_passes(version: str) -> None:
    model = load(SHAPES / version)
    assert (model.state, model.golden, model.golden_reason) == ("ready", "passed", None)
