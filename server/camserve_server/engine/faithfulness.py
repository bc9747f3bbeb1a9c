"""Whether heatmaps depend on what the network has learned: the sanity check by randomised weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from camserve_server.engine.inference import Explain
from camserve_server.engine.model import ModelVersion

_SEEDS = (0, 1, 2)


def likeness_when_randomised(model: ModelVersion, pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Returns how alike heatmaps of the network are before and after its weights are randomised, -1 to 1.

    The model parameter randomisation test of Adebayo et al. 2018 (arXiv:1810.03292, section 4): the rank correlation
    (Spearman) of the two maps of the same class, here the mean over pictures and three randomisations of all weights
    at once. Maps that stay the same, 1, show edges of the picture and not why the network decides. A map that the
    randomised network leaves empty counts 0. Leaves the network randomised.
    """
    assert model.module is not None
    assert model.default_layer is not None
    top = Explain(model.default_layer, "gradcam", None)
    before = [model.run([pixels], [top])[0] for pixels in pictures]
    likeness: list[float] = []
    for seed in _SEEDS:
        _randomise(model.module, seed)
        for pixels, outcome in zip(pictures, before, strict=True):
            other = model.run([pixels], [replace(top, target=outcome.target)])[0]
            if outcome.cam is not None and other.cam is not None:
                likeness.append(rank_correlation(outcome.cam, other.cam))
    return float(np.mean(likeness)) if likeness else 1.0


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Returns Spearman's rank correlation of two maps, 0 where one of them is constant or not finite."""
    ranks = [_ranks(each.flatten().double()) for each in (one, other)]
    deviations = [each - each.mean() for each in ranks]
    norm = deviations[0].norm() * deviations[1].norm()
    return float(deviations[0] @ deviations[1] / norm) if norm > 0 else 0.0


def _ranks(values: Tensor) -> Tensor:
    """Returns ranks; equal values, such as the zeros of a rectified map, share their mean rank."""
    _, group, counts = torch.unique(values.nan_to_num(), return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0).double() - (counts - 1).double() / 2
    return ranks[group]


def _randomise(module: nn.Module, seed: int) -> None:
    """Draws every weight anew, each tensor's from a normal distribution with the mean and deviation that it had."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point() and parameter.numel() > 1:
                drawn = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.copy_(parameter.mean() + parameter.std() * drawn)
