"""The maps equal pytorch-grad-cam's, for every method and for networks of every build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.engine.reference import CLASSES, reference_maps
from tests.engine.tiny import PoisonedNet, TinyNet
from torch import Tensor, nn
from torchvision import models

from camserve_server.engine.cam import METHODS
from camserve_server.engine.inference import Explain, Outcome, infer
from camserve_server.engine.layers import find_layers
from camserve_server.engine.manifest import read_manifest
from camserve_server.engine.weights import load_module

SHAPES = Path(__file__).parents[2] / "models" / "shapes" / "2"
TARGETS = (1, 4, 0)
SIGNED_METHODS = sorted(CLASSES.keys() - {"eigencam"})
# The expected default layer, and one inside.
NETWORKS = {
    "resnet18": ("layer4", "layer2.0.bn2"),
    "resnet50": ("layer4", "layer3.5"),
    "densenet121": ("features", "features.denseblock3.denselayer2.norm2"),
    "mobilenet_v3_large": ("features", "features.12"),
    "efficientnet_b0": ("features", "features.5.0"),
    "vgg16": ("features.29", "features.22"),
    "convnext_tiny": ("features", "features.5.1"),
    "shapes": ("focus", "coarse.1"),
}
ARGUMENTS = {name: {"num_classes": 10} for name in NETWORKS} | {"vgg16": {"init_weights": False}}


def network(name: str) -> nn.Module:
    torch.manual_seed(7)
    module = models.get_model(name, weights=None, **ARGUMENTS.get(name, {}))
    if name == "vgg16":
        # The head's 120 million weights say nothing about maps and cost seconds.
        module.classifier = nn.Sequential(nn.Linear(25088, 64), nn.ReLU(inplace=True), nn.Linear(64, 10))
    # Normalisation as after training: otherwise deep random networks explode or fade.
    norms = [child for child in module.modules() if isinstance(child, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        with torch.no_grad():
            module.train()(torch.randn(4, 3, 64, 64))
    return module.eval().requires_grad_(False)


def pictures(count: int = len(TARGETS)) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(11))


def in_engine_layout(module: nn.Module, inputs: Tensor) -> tuple[nn.Module, Tensor]:
    form = torch.channels_last
    return module.to(memory_format=form), inputs.contiguous(memory_format=form)


def outcomes(module: nn.Module, inputs: Tensor, explains: list[Explain | None]) -> list[Outcome]:
    return infer(module, inputs, explains, temperature=1.0, synchronize=lambda: None)


def maps(module: nn.Module, inputs: Tensor, explains: list[Explain | None]) -> NDArray[np.float32]:
    return np.stack([row.cam.numpy() for row in outcomes(module, inputs, explains) if row.cam is not None])


def assert_same(
    actual: NDArray[np.float32],
    expected: NDArray[np.float32],
    tolerance: float = 1e-5,
    floor: float | NDArray[np.float32] = 1.0,
) -> None:
    """Compares maps relative to their peaks, or to `floor` where a peak is below it."""
    assert actual.shape == expected.shape
    peaks = np.abs(expected).max(axis=(1, 2))
    assert (np.abs(actual - expected).max(axis=(1, 2)) <= tolerance * np.maximum(peaks, floor)).all()


def shapes() -> nn.Module:
    return load_module(SHAPES, read_manifest(SHAPES), None)


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_equal_the_reference_before_scaling(name: str) -> None:
    default, inside = NETWORKS[name]
    module, inputs = shapes() if name == "shapes" else network(name), pictures()
    assert find_layers(module, inputs[:1]).default == default
    module, inputs = in_engine_layout(module, inputs)
    for layer in (default, inside):
        expected = reference_maps(module, layer, inputs, TARGETS)
        products = np.abs(expected["gradcamelementwise"]).max(axis=(1, 2))
        for method in SIGNED_METHODS:
            ours = maps(module, inputs, [Explain(layer, method, target) for target in TARGETS])
            theirs = np.maximum(expected[method], 0)
            assert_same(ours, theirs)
            # Small maps agree as well, relative to the positive part of what they sum up: where
            # positive and negative cancel, no digits are left. XGrad-CAM divides by such sums.
            if method != "xgradcam":
                assert_same(ours, theirs, floor=products)
        ours = maps(module, inputs, [Explain(layer, "eigencam", None)] * len(TARGETS))
        for one, reference in zip(ours, expected["eigencam"], strict=True):
            oriented = reference if abs(reference.max()) >= abs(reference.min()) else -reference
            assert_same(one[None], np.maximum(oriented, 0)[None], 1e-3)


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_maps_equal_the_reference_in_the_usual_memory_layout(name: str) -> None:
    torch.manual_seed(7)
    module, inputs = models.get_model(name, weights=None).eval(), pictures()
    expected = reference_maps(module, NETWORKS[name][0], inputs, TARGETS)
    module, inputs = in_engine_layout(module, inputs)
    for method in SIGNED_METHODS:
        ours = maps(module, inputs, [Explain(NETWORKS[name][0], method, target) for target in TARGETS])
        assert_same(ours, np.maximum(expected[method], 0))


def test_a_batch_of_mixed_wishes_gives_what_each_picture_gives_alone() -> None:
    module, inputs = in_engine_layout(network("resnet18"), pictures(9))
    explains = [
        Explain("layer4", "gradcam", None),
        None,
        Explain("layer4", "hirescam", 3),
        Explain("layer2.0.bn2", "gradcam", 3),
        Explain("layer4", "eigencam", None),
        None,
        Explain("layer3", "gradcam++", 0),
        Explain("layer2.0.bn2", "layercam", 9),
        Explain("layer4", "xgradcam", 1),
    ]
    together = outcomes(module, inputs, explains)
    for row, explain in enumerate(explains):
        alone = outcomes(module, inputs[row : row + 1], [explain])[0]
        assert torch.allclose(together[row].probs, alone.probs, rtol=0, atol=1e-5)
        assert together[row].target == alone.target
        assert (together[row].cam is None) == (explain is None)
        if together[row].cam is not None and alone.cam is not None:
            assert_same(together[row].cam.numpy()[None], alone.cam.numpy()[None])


def test_the_map_of_the_top_class_is_that_class_named() -> None:
    module, inputs = in_engine_layout(network("resnet18"), pictures())
    for row in outcomes(module, inputs, [Explain("layer4", "gradcam", None)] * len(inputs)):
        assert row.target == int(row.probs.argmax())


def test_a_layer_aside_of_the_scores_is_told_for_gradients_only() -> None:
    module, inputs = TinyNet().eval().requires_grad_(False), torch.rand(2, 3, 32, 32)
    by_gradient, by_value = outcomes(
        module, inputs, [Explain("aside", "gradcam", None), Explain("aside", "eigencam", None)]
    )
    assert by_gradient.disconnected
    assert by_gradient.cam is None
    assert not by_value.disconnected
    assert by_value.cam is not None


def test_nothing_before_the_layer_is_recorded() -> None:
    module = TinyNet().eval().requires_grad_(False)
    recorded: list[bool] = []
    module.stem.register_forward_hook(lambda _, __, output: recorded.append(output.requires_grad))
    module.body[0].register_forward_hook(lambda _, __, output: recorded.append(output.requires_grad))
    outcomes(module, torch.rand(1, 3, 32, 32), [Explain("body.0.norm", "gradcam", None)])
    outcomes(module, torch.rand(1, 3, 32, 32), [None])
    assert recorded == [False, True, False, False]


def test_hooks_do_not_outlive_a_batch_even_when_it_fails() -> None:
    module = PoisonedNet().eval().requires_grad_(False)
    with pytest.raises(RuntimeError, match="poison"):
        outcomes(module, torch.ones(1, 3, 32, 32), [Explain("body", "gradcam", None)])
    assert not module.body._forward_hooks


def test_every_method_survives_a_map_without_contrast() -> None:
    zeros = torch.zeros(2, 4, 3, 3)
    for method in METHODS.values():
        assert torch.equal(method.compute(zeros, zeros), torch.zeros(2, 3, 3))


def test_eigencam_makes_the_strongest_deviation_positive() -> None:
    activations = torch.zeros(1, 2, 3, 3)
    activations[0, :, 1, 1] = -9
    raw = METHODS["eigencam"].compute(activations, activations)[0]
    assert raw[1, 1] == raw.max() > 0
