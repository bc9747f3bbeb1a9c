"""Convolutions read their weights in the order of the CPU's kernels, and no answer changes for it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from tests.engine.test_cam import assert_same, in_engine_layout, maps, network, pictures
from tests.engine.tiny import TinyNet, write_model
from torch import Tensor, nn

from camserve_server.engine.folding import FoldedConv2d, fold_norms, scores
from camserve_server.engine.inference import Explain
from camserve_server.engine.model import load_version
from camserve_server.engine.packing import pack_weights

TARGETS = (1, 4, 0)
# Convolutions, grouped and depthwise ones among them; each is packed.
PACKED = {"resnet18": 20, "resnext50_32x4d": 53, "mobilenet_v3_large": 62, "convnext_tiny": 22, "vgg16": 13}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: child.weight for name, child in module.named_modules() if isinstance(child, nn.Conv2d)}


def in_engine(name: str) -> tuple[nn.Module, Tensor]:
    module, inputs = network(name), pictures()
    fold_norms(module, inputs[:1])
    return in_engine_layout(module, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PACKED)
def test_scores_and_weights_are_those_of_before(name: str, dtype: torch.dtype) -> None:
    plain, inputs = in_engine(name)
    plain, inputs = plain.to(dtype), inputs.to(dtype)
    packed = copy.deepcopy(plain)
    # oneDNN multiplies bfloat16 on CPUs with AVX-512 and later ones only; elsewhere nothing is packed.
    is_packed = dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert PACKED[name] == len(weights(plain))
    assert pack_weights(packed, inputs) == is_packed * PACKED[name]
    for each in (inputs, inputs[:1], inputs[:2]):
        torch.testing.assert_close(scores(packed, each), scores(plain, each), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(weights(packed), weights(plain), rtol=0, atol=0)
    left = {name.removesuffix(".weight") for name, _ in packed.named_parameters()} & weights(plain).keys()
    assert left == (set() if is_packed else weights(plain).keys())


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("resnet18", "layer2.0.conv1"),
        ("resnet18", "layer2.0.bn1"),
        ("mobilenet_v3_large", "features.12.block.1.0"),
        ("convnext_tiny", "features.5"),
    ],
)
def test_maps_of_packed_layers_and_of_those_before_them_are_the_same(name: str, layer: str) -> None:
    plain, inputs = in_engine(name)
    packed = copy.deepcopy(plain)
    assert pack_weights(packed, inputs)
    for method in ("gradcam", "eigencam"):
        explains: list[Explain | None] = [Explain(layer, method, target) for target in TARGETS]
        assert_same(maps(packed, inputs, explains), maps(plain, inputs, explains), floor=1e-3)


def test_a_gradient_goes_through_a_packed_convolution() -> None:
    plain, inputs = in_engine("resnet18")
    packed = copy.deepcopy(plain)
    pack_weights(packed, inputs)
    gradients = []
    for module in (plain, packed):
        leaf = inputs.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(leaf)[:, 0].sum(), leaf)[0])
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-6)


class Reflecting(TinyNet):
    """Pads its first picture with what is beside the edge, the second by name, and has a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem[0] = nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")
        self.aside = nn.Conv2d(8, 8, 1, padding="same")
        self.shared = Doubling(8, 8, 3, padding=1)


class Doubling(nn.Conv2d):
    """Not what its weights say."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_is_no_plain_convolution_is_left_as_it_is() -> None:
    module = Reflecting().eval().requires_grad_(False)
    inputs = torch.rand(3, 3, 32, 32)
    expected = scores(module, inputs)
    assert pack_weights(module, inputs) == 2
    assert type(module.shared) is Doubling
    assert type(module.stem[0]) is type(module.aside) is nn.Conv2d
    torch.testing.assert_close(scores(module, inputs), expected)


@pytest.mark.parametrize("fault", ["no such call", "other scores"])
def test_where_packing_fails_the_module_is_what_it_was(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    module, inputs = in_engine("resnet18")
    before, expected = {name: id(weight) for name, weight in weights(module).items()}, scores(module, inputs)
    if fault == "other scores":
        monkeypatch.setattr("camserve_server.engine.packing.agree", lambda actual, expected: False)
    else:
        calls: list[object] = []

        def second_fails(packed: Tensor) -> list[int]:
            calls.append(packed)
            if len(calls) > 2:
                raise AttributeError
            return []

        monkeypatch.setattr("camserve_server.engine.packing._order", second_fails)
    assert pack_weights(module, inputs) == 0
    assert {name: id(weight) for name, weight in weights(module).items()} == before
    assert {type(child) for child in module.modules() if isinstance(child, nn.Conv2d)} == {FoldedConv2d}
    assert torch.equal(scores(module, inputs), expected)


def test_a_version_is_served_packed(tmp_path: Path) -> None:
    version = load_version(write_model(tmp_path), torch.device("cpu"), max_batch=2, weights_dir=None)
    assert version.module is not None
    assert version.state == "ready"
    convolutions = [child for child in version.module.modules() if isinstance(child, nn.Conv2d)]
    assert convolutions
    assert not any("weight" in dict(child.named_parameters()) for child in convolutions)
    assert version.memory_bytes >= sum(child.weight.nbytes for child in convolutions)
