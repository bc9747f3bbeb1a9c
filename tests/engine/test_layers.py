"""The layers offered for heatmaps are maps that a forward makes once, and "auto" is the last stage's."""

from __future__ import annotations

import pytest
import torch
from tests.engine.tiny import TinyNet
from torch import Tensor, nn
from torchvision import models

from camserve_server.engine.layers import find_layers


def layers_of(module: nn.Module, side: int = 64) -> tuple[tuple[str, ...], str | None]:
    found = find_layers(module.eval(), torch.rand(1, 3, side, side))
    return found.names, found.default


def test_layers_are_those_called_once_that_give_out_a_map() -> None:
    names, default = layers_of(TinyNet(), 32)
    assert default == "body"
    assert {"stem", "stem.0", "body.0", "body.1.conv", "aside"} <= set(names)
    assert not {"", "shared", "pool", "head"} & set(names)


@pytest.mark.parametrize("side", [64, 112])
def test_a_pooling_that_happens_to_restore_the_size_is_not_the_last_stage(side: int) -> None:
    assert layers_of(models.vgg11(init_weights=False), side)[1] == "features.19"


def test_outputs_with_channels_last_are_not_taken_for_maps() -> None:
    names, default = layers_of(models.convnext_tiny())
    assert default == "features"
    assert "features.1.0.block.0" in names
    # The block's own layers between its two permutations work on (N, h, w, C).
    assert not {f"features.1.0.block.{number}" for number in range(1, 6)} & set(names)


def test_a_gate_within_the_last_block_does_not_end_it() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.squeeze = nn.AdaptiveAvgPool2d(1)
            self.excite = nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return x * self.excite(self.squeeze(x))

    module = nn.Sequential(Gated(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    names, default = layers_of(module, 8)
    assert (names, default) == (("0.conv", "0"), "0")


def test_a_model_without_maps_has_no_layers() -> None:
    assert layers_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2)), 8) == ((), None)


def test_a_model_of_pools_alone_is_explained_by_its_last_map() -> None:
    module = nn.Sequential(nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(48, 2))
    assert layers_of(module, 8) == (("0", "1"), "1")


def test_a_map_of_a_wide_input_may_be_rounded() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2))
    found = find_layers(module, torch.rand(1, 3, 37, 111))
    assert (found.names, found.default) == (("0", "1"), "1")
