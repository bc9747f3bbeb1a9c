"""The class activation maps: each method turns a layer's activations and gradients into raw maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Method:
    """One way to make a map.

    `compute` takes activations and gradients, both (N, C, h, w) floating point on one device, and
    returns (N, h, w) maps, still signed: the caller keeps the positive part. It treats each image
    by itself, so a batch gives what single images give. With `needs_gradients` False the
    gradients passed in are ignored and may be the activations again.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    needs_gradients: bool = True


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weights each channel by its mean gradient (Selvaraju et al. 2017, arXiv:1610.02391, eq. 1 and 2)."""
    return _weighted_sum(gradients.mean(dim=(2, 3)), activations)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weights positive gradients pixel by pixel (Chattopadhay et al. 2018, arXiv:1710.11063, eq. 19 and 7).

    The second and third derivatives are powers of the first, as the paper derives for an
    exponential of the score. The 1e-6 in the denominator is the reference implementation's.
    """
    squared = gradients.square()
    total = activations.sum(dim=(2, 3), keepdim=True)
    alpha = squared / (2 * squared + total * squared * gradients + 1e-6)
    alpha = torch.where(gradients != 0, alpha, 0)
    return _weighted_sum((gradients.clamp(min=0) * alpha).sum(dim=(2, 3)), activations)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Multiplies gradient and activation pixel by pixel (Draelos and Carin 2020, arXiv:2011.08891, eq. 4)."""
    return (gradients * activations).sum(dim=1)


def gradcam_elementwise(activations: Tensor, gradients: Tensor) -> Tensor:
    """Does as `hirescam` and sums the positive products only (Pillai et al. 2021, arXiv:2110.00527)."""
    return (gradients * activations).clamp(min=0).sum(dim=1)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weights each pixel by its positive gradient (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943)."""
    return (gradients.clamp(min=0) * activations).sum(dim=1)


def xgradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Weights gradients by each pixel's share of its channel (Fu et al. 2020, arXiv:2008.02312, eq. 8)."""
    share = activations / (activations.sum(dim=(2, 3), keepdim=True) + 1e-7)
    return _weighted_sum((gradients * share).sum(dim=(2, 3)), activations)


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Projects on the first principal component (Muhammad and Yeasin 2020, arXiv:2008.00299)."""
    return _first_component(activations)


def eigengradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Does as `eigencam` with gradient times activation, and so depends on the class."""
    return _first_component(gradients * activations)


METHODS: dict[str, Method] = {
    "gradcam": Method(gradcam),
    "gradcam++": Method(gradcam_plus_plus),
    "hirescam": Method(hirescam),
    "layercam": Method(layercam),
    "xgradcam": Method(xgradcam),
    "eigencam": Method(eigencam, needs_gradients=False),
    "gradcamelementwise": Method(gradcam_elementwise),
    "eigengradcam": Method(eigengradcam),
}


def _weighted_sum(weights: Tensor, activations: Tensor) -> Tensor:
    return torch.einsum("nc,nchw->nhw", weights, activations)


def _first_component(values: Tensor) -> Tensor:
    """Returns the (N, h, w) scores of the pixels on the first principal component of the channels.

    The component's sign is arbitrary; it is chosen so that the largest deviation is positive
    (Chung and Ying 2025, doi:10.3390/app15137562, eq. 13). Float64, because the smaller of the
    two Gram matrices is diagonalised instead of the data decomposed, which squares the condition.
    """
    count, channels, height, width = values.shape
    pixels = torch.nan_to_num(values).flatten(2).transpose(1, 2).double()
    pixels = pixels - pixels.mean(dim=1, keepdim=True)
    if channels <= height * width:
        axes = torch.linalg.eigh(pixels.transpose(1, 2) @ pixels).eigenvectors[..., -1:]
        scores = (pixels @ axes).squeeze(-1)
    else:
        powers, axes = torch.linalg.eigh(pixels @ pixels.transpose(1, 2))
        scores = axes[..., -1] * powers[:, -1:].clamp(min=0).sqrt()
    flip = -scores.amin(dim=1) > scores.amax(dim=1)
    scores = torch.where(flip[:, None], -scores, scores)
    return scores.to(values.dtype).reshape(count, height, width)
