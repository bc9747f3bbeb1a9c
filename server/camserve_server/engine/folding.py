"""Batch normalisation folded into the convolution before it, which then does both in one pass over the map."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import Tensor, nn

from camserve_server.engine.calls import calls_of

# How far the scores may move, relative to the largest: what rounding in another order does.
_ROUNDING = 1e-3


class FoldedConv2d(nn.Conv2d):
    """A convolution and the normalisation after it.

    With s = gamma / sqrt(variance + eps) and t = beta - mean * s per output channel, the normalisation of W * x + b is
    (s W) * x + (s b + t) (Jacob et al. 2018, arXiv:1712.05877, eq. 14). `scale` and `shift` are s and t, (C,).
    """

    scale: Tensor
    shift: Tensor
    own_bias: Tensor | None

    @classmethod
    def of(cls, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> FoldedConv2d:
        """Returns what does the same as the two in eval mode."""
        assert norm.running_mean is not None
        assert norm.running_var is not None
        folded = copy.deepcopy(convolution)
        # A subclass with nothing of its own to initialise.
        folded.__class__ = cls
        assert isinstance(folded, cls)
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        shift = -norm.running_mean.double() * scale
        if norm.affine:
            scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
        dtype, bias = convolution.weight.dtype, convolution.bias
        weight = convolution.weight.double() * scale.view(-1, 1, 1, 1)
        folded.weight = nn.Parameter(weight.to(dtype))
        folded.bias = nn.Parameter((shift if bias is None else bias.double() * scale + shift).to(dtype))
        folded.register_buffer("scale", scale.to(dtype))
        folded.register_buffer("shift", shift.to(dtype))
        folded.register_buffer("own_bias", None if bias is None else bias.detach())
        return folded.eval().requires_grad_(False)

    def unnormalised(self, inputs: Tensor) -> Tensor:
        """Returns what the convolution alone makes of (N, C, H, W), no less than float32."""
        weight = self.weight.to(self.scale.dtype) / self.scale.view(-1, 1, 1, 1)
        output: Tensor = self._conv_forward(inputs.to(self.scale.dtype), weight, self.own_bias)
        return output

    def normalised(self, output: Tensor) -> Tensor:
        """Returns what the normalisation makes of the convolution's output (N, C, h, w)."""
        return output * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)


def fold_norms(module: nn.Module, inputs: Tensor) -> int:
    """Folds, in a frozen module in eval mode, each batch normalisation that alone takes a convolution's output.

    Every module keeps its name: a folded normalisation becomes an identity. Returns how many there are, none where
    `inputs` (N, 3, H, W) then get other scores.
    """
    pairs = _pairs(module, inputs)
    if not pairs:
        return 0
    before = {name: module.get_submodule(name) for pair in pairs for name in pair}
    # Memory may be short, and code may look at its modules in other ways than by calling them.
    try:
        expected = scores(module, inputs)
        for name, norm_name in pairs:
            convolution, norm = before[name], before[norm_name]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            module.set_submodule(name, FoldedConv2d.of(convolution, norm))
            module.set_submodule(norm_name, nn.Identity().eval())
        is_right = agree(scores(module, inputs), expected)
    except Exception:
        is_right = False
    if is_right:
        return len(pairs)
    for name, child in before.items():
        module.set_submodule(name, child)
    return 0


def scores(module: nn.Module, inputs: Tensor) -> Tensor:
    """Returns what the module makes of (N, 3, H, W), which it leaves as they are."""
    with torch.inference_mode():
        # A copy, as code may work in place on its input.
        made: Tensor = module(inputs.clone())
    return made


def agree(actual: Tensor, expected: Tensor) -> bool:
    """Whether scores differ by no more than rounding in another order makes them."""
    return bool((actual - expected).abs().max() <= _ROUNDING * expected.abs().max().clamp(min=1))


def _pairs(module: nn.Module, inputs: Tensor) -> list[tuple[str, str]]:
    """Returns the names of convolutions and their normalisations, as one run with `inputs` shows them."""
    # A module that does not run, or not with gradients, says so where it matters.
    try:
        calls = calls_of(module, inputs, (nn.Conv2d, nn.BatchNorm2d))
    except Exception:
        return []
    found = Counter(call.name for call in calls)
    uses = Counter(id(child) for _, child in module.named_modules(remove_duplicate=False))
    weights = Counter(id(child.weight) for child in module.modules() if isinstance(child, nn.Conv2d))
    made = {call.node: call for call in calls if isinstance(call.module, nn.Conv2d)}
    pairs = []
    for call in calls:
        # What was done in place to the convolution's output stands between the two as another node.
        source = made.get(call.source)
        # Subclasses may do something else.
        if source is None or type(source.module) is not nn.Conv2d or type(call.module) is not nn.BatchNorm2d:
            continue
        alone = source.readers == 1 and weights[id(source.module.weight)] == 1
        plain = all(found[one.name] == 1 and uses[id(one.module)] == 1 and not one.hooked for one in (source, call))
        if alone and plain and _is_lossless(call.module):
            pairs.append((source.name, call.name))
    return pairs


def _is_lossless(norm: nn.BatchNorm2d) -> bool:
    """Whether it works with what it has seen before, and a channel's weights can be told from the folded ones."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        return False
    scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1)
    # Far from where float32 loses digits.
    return bool(scale.isfinite().all() and (scale.abs() > 1e-20).all())
