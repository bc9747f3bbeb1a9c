"""The scene generator draws what it says, and the committed weights recognise and locate it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training.dataset import Dataset
from training.evaluation import examine, explain, normalised
from training.outlines import CLASSES, RECIPES
from training.shapes_scenes import draw_scene, letterbox, letterboxed_box

from camserve_server.engine.architectures.shapes import ShapesNet
from camserve_server.engine.calibration import softmax

MODELS = Path(__file__).resolve().parents[2] / "models" / "shapes"
FRESH_SEED = 424_242
FRESH_SCENES = 200


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _load(version: str) -> tuple[ShapesNet, dict[str, Any]]:
    described = tomllib.loads((MODELS / version / "model.toml").read_text())
    network = ShapesNet(**described["architecture"]["arguments"])
    network.load_state_dict(load_file(MODELS / version / described["weights"]["file"]))
    return network.eval(), described


def test_the_same_seed_and_index_give_the_same_scene() -> None:
    first, again, other = draw_scene(5, 17), draw_scene(5, 17), draw_scene(6, 17)

    assert np.array_equal(first.pixels, again.pixels)
    assert (first.label, first.box, first.recipe) == (again.label, again.box, again.recipe)
    assert first.pixels.shape != other.pixels.shape or not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("label", range(len(CLASSES)), ids=CLASSES)
def test_every_class_renders_by_each_of_its_recipes(label: int) -> None:
    scenes = [draw_scene(9, index, label) for index in range(40)]

    assert {scene.label for scene in scenes} == {label}
    assert {scene.recipe.split("/")[1] for scene in scenes} == set(RECIPES[CLASSES[label]])


def test_the_box_holds_every_pixel_of_the_object_and_no_margin() -> None:
    for index in range(60):
        scene = draw_scene(11, index)
        height, width = scene.pixels.shape[:2]
        ys, xs = np.nonzero(scene.mask)

        assert scene.mask.shape == (height, width)
        assert scene.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert 0 <= scene.box[0] < scene.box[2] <= width
        assert 0 <= scene.box[1] < scene.box[3] <= height


def test_the_object_differs_from_its_surroundings() -> None:
    for index in range(60):
        scene = draw_scene(12, index)
        inside = scene.pixels[scene.mask > 200].astype(np.float64)
        x0, y0, x1, y1 = (int(value) for value in scene.box)
        window = (slice(max(0, y0 - 6), y1 + 6), slice(max(0, x0 - 6), x1 + 6))
        outside = scene.pixels[window][scene.mask[window] == 0].astype(np.float64)
        if len(inside) < 20:
            continue

        distance = np.linalg.norm(inside[:, None, :].mean(axis=0) - outside, axis=1)
        assert np.percentile(distance, 75) > 15, scene.recipe


def test_a_letterboxed_box_follows_its_pixels() -> None:
    picture = np.zeros((100, 300, 3), dtype=np.uint8)
    picture[40:60, 150:210] = 255

    boxed = letterbox(picture, 120, pad_color=(0, 0, 0))
    ys, xs = np.nonzero(boxed[:, :, 0] > 127)

    assert boxed.shape == (120, 120, 3)
    assert letterboxed_box((150, 40, 210, 60), 300, 100, 120) == (60, 56, 84, 64)
    assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == (60, 56, 84, 64)


@pytest.fixture(scope="module")
def fresh_scenes() -> Dataset:
    side = 160
    scenes = [draw_scene(FRESH_SEED, index) for index in range(FRESH_SCENES)]
    boxes = [letterboxed_box(scene.box, scene.pixels.shape[1], scene.pixels.shape[0], side) for scene in scenes]
    return Dataset(
        np.stack([letterbox(scene.pixels, side) for scene in scenes]),
        np.array([scene.label for scene in scenes], dtype=np.int64),
        np.array(boxes, dtype=np.float32),
    )


@pytest.mark.parametrize("version", ["1", "2"])
def test_committed_weights_recognise_and_locate_fresh_scenes(version: str, fresh_scenes: Dataset) -> None:
    network, described = _load(version)
    assert described["input"]["width"] == described["input"]["height"] == fresh_scenes.pixels.shape[1]

    outcome = examine(network, fresh_scenes)

    assert outcome.correct.mean() >= 0.95
    assert outcome.peak_inside.mean() >= 0.9


@pytest.mark.parametrize("version", ["1", "2"])
def test_golden_inputs_give_their_probabilities_and_maps(version: str) -> None:
    network, described = _load(version)
    golden = json.loads((MODELS / version / "golden.json").read_text())
    assert 5 <= len(golden["cases"]) <= 10

    for case in golden["cases"]:
        with Image.open(MODELS / version / case["image"]) as image:
            pixels = letterbox(np.array(image.convert("RGB")), described["input"]["width"])
        logits, cam = explain(network, normalised(pixels[None]))
        probabilities = softmax(logits.numpy().astype(np.float64), described["calibration"]["temperature"])[0]

        assert CLASSES[int(probabilities.argmax())] == case["top"]
        for name, expected in case["probs"].items():
            assert probabilities[CLASSES.index(name)] == pytest.approx(expected, abs=golden["tolerances"]["prob"])
        assert np.abs(cam[0].numpy() - np.load(MODELS / version / case["cam"])).max() <= golden["tolerances"]["cam"]


def test_weights_stay_within_three_megabytes() -> None:
    for version in ("1", "2"):
        assert (MODELS / version / "weights.safetensors").stat().st_size <= 3_000_000
        assert all(tensor.dtype in {torch.float32, torch.int64} for tensor in _load(version)[0].state_dict().values())
