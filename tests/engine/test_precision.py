"""bfloat16 where a version asks for it, the device has it, and the answers stay what they were."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engine.test_cam import assert_same, maps, network, pictures
from tests.engine.tiny import TinyNet, write_model
from torch import Tensor, nn

from camserve_server.engine.folding import fold_norms
from camserve_server.engine.golden import Tolerances, write_golden
from camserve_server.engine.inference import Explain, infer
from camserve_server.engine.manifest import Precision
from camserve_server.engine.model import ModelVersion, golden_rerun, load_version
from camserve_server.engine.pictures import draw_picture, encode_picture
from camserve_server.engine.precision import BFLOAT16_CAM, has_bfloat16, lowered

CPU = torch.device("cpu")
TOP = 'precision = "bfloat16"'


@pytest.fixture(autouse=True)
def _emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch multiplies bfloat16 on every CPU, if slowly."""
    monkeypatch.setattr("camserve_server.engine.model.has_bfloat16", lambda device: True)


def load(folder: Path) -> ModelVersion:
    return load_version(folder, CPU, max_batch=2, weights_dir=None)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True), ({"avx512_f": True}, False)],
)
def test_a_cpu_has_bfloat16_where_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16(CPU) is expected


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_large"])
def test_a_lowered_network_works_in_bfloat16_and_scores_in_float32(name: str) -> None:
    module, inputs = network(name), pictures()
    fold_norms(module, inputs[:1])
    low = lowered(module, inputs[:1])
    convolution = next(child for child in low.modules() if isinstance(child, nn.Conv2d))
    head = [child for child in low.modules() if isinstance(child, nn.Linear)][-1]
    own = [child for child in module.modules() if isinstance(child, nn.Linear)][-1]
    assert convolution.weight.dtype is torch.bfloat16
    assert torch.equal(head.weight, own.weight)
    assert inputs.dtype is torch.float32
    explains = [Explain("layer4" if name == "resnet18" else "features", "gradcam", 1)] * len(inputs)
    one, other = (infer(each, inputs, explains, temperature=1.0, synchronize=lambda: None) for each in (module, low))
    for precise, rough in zip(one, other, strict=True):
        assert rough.probs.dtype is torch.float32
        assert float((precise.probs - rough.probs).abs().max()) < 0.02
        assert rough.cam is not None
        assert rough.cam.dtype is torch.float32
    if name == "resnet18":
        assert_same(maps(low, inputs, explains), maps(module, inputs, explains), BFLOAT16_CAM, floor=0.0)


def test_a_network_without_a_linear_layer_at_its_end_is_lowered_whole() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    inputs = torch.rand(2, 3, 8, 8)
    low = lowered(module, inputs)
    assert {parameter.dtype for parameter in low.parameters()} == {torch.bfloat16}
    with torch.inference_mode():
        torch.testing.assert_close(low(inputs).float(), module(inputs), rtol=0.02, atol=0.02)


def test_a_version_works_in_float32_unless_it_asks_for_less(tmp_path: Path) -> None:
    assert load(write_model(tmp_path)).precision == "float32"
    low = load(write_model(tmp_path, version="2", top=TOP))
    assert (low.state, low.precision, low.precision_reason) == ("ready", "bfloat16", None)
    assert low.memory_bytes < load(write_model(tmp_path, version="3")).memory_bytes


def test_a_device_without_bfloat16_works_in_float32_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_server.engine.model.has_bfloat16", lambda device: False)
    model = load(write_model(tmp_path, top=TOP))
    assert (model.state, model.precision) == ("ready", "float32")
    assert model.precision_reason == "the device has no bfloat16"


def with_golden(tmp_path: Path, **tolerances: float) -> Path:
    """Writes a version that asks for bfloat16, with golden answers of float32."""
    folder = write_model(tmp_path, top=TOP, golden='file = "golden.json"')
    (folder / "golden.json").write_text('{"cases": []}')
    precise = load_version(write_model(tmp_path, version="0"), CPU, max_batch=2, weights_dir=None)
    write_golden(folder, "golden.json", [("one.png", encode_picture(draw_picture(0, 40, 40)))], precise)
    change_golden(folder, lambda golden: golden.update(tolerances=tolerances))
    return folder


def change_golden(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    golden = json.loads((folder / "golden.json").read_text())
    change(golden)
    (folder / "golden.json").write_text(json.dumps(golden))


def test_golden_answers_of_float32_decide(tmp_path: Path) -> None:
    folder = with_golden(tmp_path, prob=0.05)
    model = load(folder)
    assert (model.precision, model.precision_reason, model.golden) == ("bfloat16", None, "passed")
    change_golden(folder, lambda golden: golden.update(tolerances={"prob": 1e-6}))
    model = load(folder)
    assert (model.precision, model.golden) == ("float32", "passed")
    assert model.precision_reason == "bfloat16 does not give the golden answers: case 1: a probability is off"


class Touchy(TinyNet):
    """Gives other scores in another precision."""

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x)
        return scores if x.dtype is torch.float32 else scores.flip(1)


def test_without_golden_inputs_the_answers_to_noise_decide(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, top=TOP, architecture=f'builder = "{__name__}:Touchy"'))
    assert (model.precision, model.precision_reason) == ("float32", "bfloat16 gives other probabilities")


class KnowsFloat32Only(TinyNet):
    """Has a table of its own that is no weight, and so stays what it was."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x @ torch.eye(x.shape[-1]))


def test_code_that_knows_float32_only_is_served_in_it(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, top=TOP, architecture=f'builder = "{__name__}:KnowsFloat32Only"'))
    assert (model.state, model.precision) == ("ready", "float32")
    assert model.precision_reason == "bfloat16 fails (RuntimeError)"


def test_a_program_keeps_the_precision_that_it_was_made_with(tmp_path: Path) -> None:
    program = f'file = "program.pt"\nformat = "torchscript"\nsha256 = "{"0" * 64}"'
    model = load(write_model(tmp_path, top=TOP, architecture=None, weights=program))
    assert model.reason == "model.toml: its tables: a program has the precision that it was made with"


@pytest.mark.parametrize(
    ("cam", "peak", "precision", "expected"),
    [
        (0.001, 0.1, "float32", 0.001),
        (0.001, 9.0, "float32", 0.009),
        (0.001, 0.1, "bfloat16", 0.005),
        (0.001, 9.0, "bfloat16", 0.45),
        (0.2, 9.0, "bfloat16", 1.8),
    ],
)
def test_known_maps_are_compared_with_what_three_digits_allow(
    cam: float, peak: float, precision: Precision, expected: float
) -> None:
    assert Tolerances(cam=cam).of_map(peak, precision) == pytest.approx(expected)


@pytest.mark.parametrize(("off_by", "state"), [(0.03, "passed"), (0.08, "failed")])
def test_a_heatmap_may_differ_by_a_share_of_its_peak(tmp_path: Path, off_by: float, state: str) -> None:
    folder = with_golden(tmp_path, prob=0.05, cam=1e-5)
    model = load(folder)
    assert model.precision == "bfloat16"
    (cam,) = folder.rglob("*.npy")
    known = np.load(cam)
    np.save(cam, known + off_by * known.max())
    assert golden_rerun(folder, model).golden == state


def test_where_float32_fails_its_golden_inputs_nothing_else_is_tried(tmp_path: Path) -> None:
    folder = with_golden(tmp_path)
    change_golden(folder, lambda golden: golden["cases"][0].update(top="nobody"))
    model = load(folder)
    assert (model.precision, model.golden) == ("float32", "failed")
    assert model.precision_reason == "its golden inputs fail in float32 as well"


def test_probabilities_do_not_depend_on_the_layer_that_is_asked_for(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, top=TOP))
    assert model.precision == "bfloat16"
    pixels = np.asarray(draw_picture(0, 32, 32))
    answers = [model.run([pixels], [Explain(layer, "gradcam", None)])[0] for layer in model.layers]
    assert len(answers) > 5
    assert all(torch.equal(answer.probs, answers[0].probs) for answer in answers)
    assert {"body.0.conv", "body.0.norm"} < set(model.layers)


def test_the_same_version_in_both_precisions_gives_the_same_class(tmp_path: Path) -> None:
    folder = with_golden(tmp_path)
    low = load(folder)
    pixels = np.asarray(draw_picture(0, 32, 32))
    precise = load(write_model(tmp_path, version="4"))
    explain = [Explain("body", "gradcam", None)]
    assert low.run([pixels], explain)[0].target == precise.run([pixels], explain)[0].target
