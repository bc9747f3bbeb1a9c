"""Normalisations are folded into convolutions where that changes no answer, and every layer keeps its map."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tests.engine.reference import reference_maps
from tests.engine.test_cam import SIGNED_METHODS, assert_same, maps, network, pictures
from tests.engine.tiny import Block, TinyNet
from torch import Tensor, nn

from camserve_server.engine.folding import FoldedConv2d, fold_norms
from camserve_server.engine.inference import Explain
from camserve_server.engine.layers import find_layers

TARGETS = (1, 4, 0)
# How many normalisations take a convolution's output and nothing else does.
FOLDED = {"resnet18": 20, "resnet50": 53, "densenet121": 59, "mobilenet_v3_large": 46, "convnext_tiny": 0, "vgg16": 0}


def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    with torch.inference_mode():
        return module(inputs)


def norms(module: nn.Module) -> int:
    return sum(isinstance(child, nn.BatchNorm2d) for child in module.modules())


@pytest.mark.parametrize("name", FOLDED)
def test_scores_and_layers_are_those_of_before(name: str) -> None:
    # In float64, in which folding loses nothing: in float32 a ReLU may let through what was just below zero.
    plain, inputs = network(name).double(), pictures().double()
    folded = copy.deepcopy(plain)
    assert fold_norms(folded, inputs[:1]) == FOLDED[name] == norms(plain) - norms(folded)
    torch.testing.assert_close(scores(folded, inputs), scores(plain, inputs), rtol=1e-9, atol=1e-9)
    assert find_layers(folded, inputs[:1]) == find_layers(plain, inputs[:1])
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not folded.training


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet50", "layer3.5.conv2"),
        ("resnet50", "layer3.5.bn2"),
        ("resnet50", "layer4"),
        ("mobilenet_v3_large", "features.12.block.1.0"),
    ],
)
def test_maps_of_folded_layers_are_those_of_the_reference_on_the_network_as_it_was(name: str, layer: str) -> None:
    plain, inputs = network(name).double(), pictures().double()
    folded = copy.deepcopy(plain)
    fold_norms(folded, inputs[:1])
    expected = reference_maps(plain, layer, inputs, TARGETS)
    products = np.abs(expected["gradcamelementwise"]).max(axis=(1, 2))
    for method in SIGNED_METHODS:
        ours = maps(folded, inputs, [Explain(layer, method, target) for target in TARGETS])
        assert_same(ours, np.maximum(expected[method], 0), floor=products if method != "xgradcam" else 1.0)


def test_what_is_called_twice_or_stands_alone_is_left_as_it_is() -> None:
    module = TinyNet().eval().requires_grad_(False)
    shared = module.shared
    assert fold_norms(module, torch.rand(1, 3, 32, 32)) == 2
    assert module.shared is shared
    assert isinstance(module.body[0].conv, FoldedConv2d)
    assert isinstance(module.body[1].norm, nn.Identity)


class TwoReaders(Block):
    """Adds the convolution's own output to the normalised one."""

    def forward(self, x: Tensor) -> Tensor:
        own = self.conv(x)
        return self.norm(own) + own


class OneNormTwice(Block):
    """Uses one normalisation for two maps."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) + self.norm(self.conv(-x))


class ReadsTheNorm(Block):
    """Does something else once its normalisation is gone."""

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(x))
        return out if isinstance(self.norm, nn.BatchNorm2d) else out * 2


class NeedsTheNorm(Block):
    """Fails once its normalisation is gone."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)) * self.norm.num_features


class InPlace(Block):
    """Works on its input in place, which a leaf of autograd's would refuse."""

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.norm(self.conv(x))


class Switched(Block):
    """Has a channel that its normalisation has switched off."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        with torch.no_grad():
            self.norm.weight[1] = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class OfThisBatch(Block):
    """Normalises with what it sees now."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.BatchNorm2d(width, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class InBetween(Block):
    """Does something in place between the two, so little that scores would hardly tell."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1e-6 * self.norm(self.relu(self.conv(x)))


@pytest.mark.parametrize(
    ("kind", "folded"),
    [
        (OfThisBatch, 0),
        (InBetween, 0),
        (TwoReaders, 0),
        (OneNormTwice, 0),
        (ReadsTheNorm, 0),
        (NeedsTheNorm, 0),
        (Switched, 0),
        (InPlace, 1),
    ],
)
def test_a_norm_is_folded_only_where_nothing_else_depends_on_it(kind: type[Block], folded: int) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(kind(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    inputs = torch.rand(2, 3, 8, 8)
    expected = scores(module, inputs.clone())
    assert fold_norms(module, inputs) == folded
    assert norms(module) == 1 - folded
    torch.testing.assert_close(scores(module, inputs.clone()), expected, rtol=1e-4, atol=1e-4)


def test_one_false_pair_does_not_keep_others_from_being_folded() -> None:
    torch.manual_seed(1)
    module = nn.Sequential(InBetween(3), InPlace(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval().requires_grad_(False)
    assert fold_norms(module, torch.rand(2, 3, 8, 8)) == 1


def test_where_memory_is_short_all_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.Sequential(InPlace(3), InPlace(3)).eval().requires_grad_(False)
    of, made = FoldedConv2d.of, []

    def short(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> FoldedConv2d:
        if made:
            raise torch.OutOfMemoryError
        made.append(of(convolution, norm))
        return made[0]

    monkeypatch.setattr(FoldedConv2d, "of", short)
    before = [module[0].conv, module[0].norm, module[1].conv, module[1].norm]
    assert fold_norms(module, torch.rand(2, 3, 8, 8)) == 0
    assert [module[0].conv, module[0].norm, module[1].conv, module[1].norm] == before


def test_a_convolution_with_a_bias_and_a_norm_without_weights_are_folded() -> None:
    torch.manual_seed(2)
    norm = nn.BatchNorm2d(4, affine=False)
    norm.running_mean, norm.running_var = torch.rand(4), torch.rand(4) + 0.5
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), norm, nn.AdaptiveAvgPool2d(1))
    module = module.append(nn.Flatten()).eval().requires_grad_(False)
    inputs = torch.rand(2, 3, 8, 8)
    before, own = scores(module, inputs), scores(module[0], inputs)
    assert fold_norms(module, inputs) == 1
    torch.testing.assert_close(scores(module, inputs), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module[0].unnormalised(inputs), own, rtol=1e-4, atol=1e-5)


def test_a_module_that_cannot_run_with_gradients_is_left_as_it_is() -> None:
    class NoGradients(Block):
        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(super().forward(x).numpy())

    module = NoGradients(3).eval().requires_grad_(False)
    assert fold_norms(module, torch.rand(1, 3, 8, 8)) == 0
    assert isinstance(module.norm, nn.BatchNorm2d)
