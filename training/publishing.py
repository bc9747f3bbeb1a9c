"""Writes a trained version as a model directory: weights, labels, model.toml, golden inputs and figures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save_file

from camserve_server.engine.architectures.shapes import ShapesNet
from camserve_server.engine.calibration import softmax
from training.dataset import Dataset
from training.evaluation import MEAN, STD, explain, normalised
from training.fitting import Recipe
from training.outlines import CLASSES
from training.report import table
from training.shapes_scenes import PAD_COLOR

_GOLDEN_CASES = len(CLASSES)


def _model_toml(recipe: Recipe, temperature: float, weights_sha256: str) -> str:
    arguments = ", ".join(f"{name} = {json.dumps(value)}" for name, value in recipe.network.items())
    aliases = '["stable"]' if recipe.version == "2" else "[]"
    return f"""name = "shapes"
version = "{recipe.version}"
aliases = {aliases}
labels = "labels.json"
labels_version = "1"
precision = "float32"

[architecture]
builder = "camserve_server.engine.architectures.shapes:ShapesNet"
arguments = {{ {arguments} }}

[weights]
file = "weights.safetensors"
sha256 = "{weights_sha256}"

[input]
width = {recipe.side}
height = {recipe.side}
fit = "pad"
interpolation = "bilinear"
pad_color = {list(PAD_COLOR)}
mean = {[MEAN] * 3}
std = {[STD] * 3}

[calibration]
temperature = {temperature}
version = "1"

[cam]
layer = "focus"

[golden]
file = "golden.json"
"""


def _write_golden(out: Path, network: ShapesNet, temperature: float, scenes: Dataset) -> None:
    """Keeps small pictures that the network is sure of, of different classes, at the size of its input.

    At that size no resizing stands between the picture and the network, so a difference is the engine's.
    """
    folder = out / "golden"
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    cases: list[dict[str, Any]] = []
    done: set[int] = set()
    for index, label in enumerate(scenes.labels):
        if len(done) == _GOLDEN_CASES:
            break
        pixels = np.array(scenes.pixels[index : index + 1])
        logits, cam = explain(network, normalised(pixels))
        probabilities = softmax(logits.numpy().astype(np.float64), temperature)[0]
        if int(label) in done or int(probabilities.argmax()) != label or probabilities.max() < 0.9:
            continue
        name = CLASSES[int(label)]
        picture = folder / f"{name}.png"
        Image.fromarray(pixels[0]).save(picture, optimize=True)
        if picture.stat().st_size > 20_000:
            picture.unlink()
            continue
        np.save(folder / f"{name}.npy", cam[0].numpy().astype(np.float32))
        best = np.argsort(-probabilities)[:5]
        cases.append(
            {
                "image": f"golden/{name}.png",
                "top": name,
                "probs": {CLASSES[int(number)]: round(float(probabilities[number]), 6) for number in best},
                "cam": f"golden/{name}.npy",
            }
        )
        done.add(int(label))
    golden = {"tolerances": {"prob": 0.001, "cam": 0.001}, "cases": cases}
    (out / "golden.json").write_text(json.dumps(golden, indent=2) + "\n")


def publish(out: Path, recipe: Recipe, network: ShapesNet, figures: dict[str, Any], scenes: Dataset) -> None:
    """Writes the whole directory `out`; `figures` gains the size of the weights file."""
    out.mkdir(parents=True, exist_ok=True)
    weights = out / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, weights)
    weights.chmod(0o644)
    data = weights.read_bytes()
    figures["weights_bytes"] = len(data)
    temperature = float(figures["temperature"])
    toml = _model_toml(recipe, temperature, hashlib.sha256(data).hexdigest())
    (out / "model.toml").write_text(toml)
    labels = [{"id": name, "label": name} for name in CLASSES]
    (out / "labels.json").write_text(json.dumps(labels, indent=2) + "\n")
    _write_golden(out, network, temperature, scenes)
    (out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    (out / "FIGURES.md").write_text(table(figures))
