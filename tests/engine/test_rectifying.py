"""A packed convolution applies the rectifier after it, unless somebody else sees what it gives."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.engine.test_cam import assert_same, maps
from tests.engine.test_packing import TARGETS, in_engine
from torch import Tensor, nn
from torch.nn import functional

from camserve_server.engine.folding import scores
from camserve_server.engine.inference import Explain
from camserve_server.engine.lanes import twin
from camserve_server.engine.packing import pack_weights

# Convolutions with a rectifier of their own after them; a block's last takes a sum, a gate's is part of it.
RECTIFYING = {"resnet18": 9, "vgg16": 13, "mobilenet_v2": 35, "densenet121": 59}


def rectifying(module: nn.Module) -> list[str]:
    """Returns the names of the convolutions that give nothing below zero."""
    found = []
    for name, child in module.named_modules():
        if isinstance(child, nn.Conv2d):
            inputs = torch.randn(1, child.in_channels, 9, 9)
            with torch.inference_mode():
                lowest = child(inputs).min()
            if lowest >= 0:
                found.append(name)
    return found


@pytest.mark.parametrize("name", RECTIFYING)
def test_scores_are_those_of_before(name: str) -> None:
    plain, inputs = in_engine(name)
    packed = copy.deepcopy(plain)
    assert pack_weights(packed, inputs)
    assert len(rectifying(packed)) == RECTIFYING[name]
    assert not rectifying(plain)
    for each in (inputs, inputs[:1]):
        torch.testing.assert_close(scores(packed, each), scores(plain, each), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "conv1"),
        ("resnet18", "bn1"),
        ("resnet18", "relu"),
        ("resnet18", "layer3.1.conv1"),
        ("resnet18", "layer3.1.bn1"),
        ("vgg16", "features.7"),
        ("vgg16", "features.8"),
        ("mobilenet_v2", "features.5.conv.1.0"),
        ("mobilenet_v2", "features.5.conv.1.1"),
        ("mobilenet_v2", "features.5.conv.1"),
    ],
)
def test_a_map_of_a_layer_sees_what_the_layer_gives(name: str, layer: str) -> None:
    plain, inputs = in_engine(name)
    packed = copy.deepcopy(plain)
    assert pack_weights(packed, inputs)
    before = rectifying(packed)
    for method in ("gradcam", "eigencam"):
        explains: list[Explain | None] = [Explain(layer, method, target) for target in TARGETS]
        assert_same(maps(packed, inputs, explains), maps(plain, inputs, explains), floor=1e-3)
    assert rectifying(packed) == before


class Blocks(nn.Module):
    """Convolutions of which others see the output, in every way but the last one's."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("functional", "read_twice", "called_twice", "changed", "last"):
            setattr(self, name, nn.Conv2d(3, 3, 3, padding=1))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.functional(x))
        seen = self.read_twice(x)
        x = self.relu(seen.clone()) - seen
        x = self.relu(self.called_twice(x))
        x = self.called_twice(x)
        changed = self.changed(x)
        changed -= 0.5
        x = self.relu(self.relu(changed) - 0.1)
        # What is done in place to what came rectified makes it something else.
        x = self.relu(self.last(x))
        x -= 0.2
        x = self.relu(x)
        pooled: Tensor = self.head(x.mean(dim=(2, 3)))
        return pooled


def test_only_a_rectifier_that_alone_takes_what_a_convolution_gives_is_applied_by_it() -> None:
    torch.manual_seed(0)
    plain = Blocks().eval().requires_grad_(False)
    inputs = torch.randn(3, 3, 16, 16)
    packed = copy.deepcopy(plain)
    assert pack_weights(packed, inputs) == 5
    assert rectifying(packed) == ["last"]
    torch.testing.assert_close(scores(packed, inputs), scores(plain, inputs), rtol=1e-5, atol=1e-6)
    explains: list[Explain | None] = [Explain("changed", "eigencam", None)] * 3
    assert_same(maps(packed, inputs, explains), maps(plain, inputs, explains), floor=1e-3)


def test_a_copy_asks_its_own_modules_who_waits() -> None:
    module, inputs = in_engine("resnet18")
    assert pack_weights(module, inputs)
    copied = twin(module)
    before = rectifying(copied)
    assert len(before) == RECTIFYING["resnet18"]
    copied.get_submodule("bn1").register_forward_hook(lambda *_: None)
    assert set(before) - set(rectifying(copied)) == {"conv1"}
    assert rectifying(module) == before
    torch.testing.assert_close(scores(copied, inputs), scores(module, inputs), rtol=1e-4, atol=1e-4)


class Scripted(nn.Module):
    """Has a part that takes no hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.relu = nn.ReLU()
        self.part = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()))

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.part(self.relu(self.conv(x))).mean(dim=(2, 3))
        return pooled


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_scripted_part_stands_in_nobodys_way_and_no_hooks_stay() -> None:
    module = Scripted().eval().requires_grad_(False)
    inputs = torch.randn(3, 3, 16, 16)
    expected = scores(module, inputs)
    assert pack_weights(module, inputs) == 1
    assert rectifying(module) == ["conv"]
    torch.testing.assert_close(scores(module, inputs), expected)
    assert not any(child._forward_hooks for child in module.modules())


def test_where_packing_fails_rectifiers_are_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    module, inputs = in_engine("resnet18")
    monkeypatch.setattr("camserve_server.engine.packing.agree", lambda actual, expected: False)
    assert pack_weights(module, inputs) == 0
    assert type(module.relu) is nn.ReLU
    assert not rectifying(module)
