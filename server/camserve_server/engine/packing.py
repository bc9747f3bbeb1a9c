"""Weights of convolutions kept in the order in which the CPU's kernels read them; else every pass puts them into it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camserve_server.engine.folding import FoldedConv2d, agree, scores
from camserve_server.engine.rectifying import Rectifier, find_rectifiers, mark_rectified

# With several threads oneDNN may want another order for one picture alone than for several; any several have the same.
_SEVERAL = 8


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """One convolution's weights for one picture alone and for several together, in no order that torch knows."""

    alone: Tensor
    together: Tensor
    dtype: torch.dtype
    threads: int

    @classmethod
    def of(cls, convolution: nn.Conv2d, inputs: torch.Size) -> PackedWeights:
        """Packs those of a convolution that gets (N, C, H, W), for the calling thread's number of threads."""
        alone, together = (_ordered(convolution, (count, *inputs[1:])) for count in (1, _SEVERAL))
        if _order(alone) == _order(together):
            alone = together
        return cls(alone, together, convolution.weight.dtype, torch.get_num_threads())


class _PackedConv2d(nn.Conv2d):
    """A convolution whose weights are packed; `weight` unpacks them."""

    packed: PackedWeights
    rectifier: Rectifier | None

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The weights (out, in / groups, kh, kw), a copy."""
        dense: Tensor = self.packed.together.to_dense()
        return dense

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Maps (N, C, H, W); gradients go through the unpacked weights, as the packed ones have no backward pass."""
        needs_gradient = torch.is_grad_enabled() and input.requires_grad
        if needs_gradient or input.ndim != 4 or input.dtype != self.packed.dtype:
            return self._dense(input)
        is_alone = len(input) == 1 and torch.get_num_threads() == self.packed.threads
        weight = self.packed.alone if is_alone else self.packed.together
        rectifier = self.rectifier if self.rectifier and self.rectifier.is_due else None
        after: tuple[str, list[float]] = (rectifier.name, rectifier.bounds) if rectifier else ("none", [])
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, weight, self.bias, self.padding, self.stride, self.dilation, self.groups, *after, ""
        )
        return mark_rectified(output) if rectifier else output

    def _dense(self, inputs: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(inputs, self.weight, self.bias)
        return output


class _PackedFoldedConv2d(_PackedConv2d, FoldedConv2d):
    """Both."""


# Subclasses may do something else.
_CLASSES: dict[type, type[_PackedConv2d]] = {nn.Conv2d: _PackedConv2d, FoldedConv2d: _PackedFoldedConv2d}


def pack_weights(module: nn.Module, inputs: Tensor) -> int:
    """Packs the weights of the convolutions of a frozen module in eval mode on the CPU, which then reads no others.

    Every module keeps its name, and a convolution applies the rectifier after it. Returns how many there are, none
    where `inputs` (N, 3, H, W) then get other scores.
    """
    plain: dict[nn.Conv2d, Tensor] = {}
    rectifiers = find_rectifiers(module, inputs[:1])
    # Memory may be short, code may look at its modules in other ways than by calling them, torch may lack the calls.
    try:
        expected = [scores(module, each) for each in (inputs[:1], inputs)]
        for convolution, shape in _input_shapes(module, inputs[:1]).items():
            packed, weight = PackedWeights.of(convolution, shape), convolution.weight
            plain[convolution] = weight
            del convolution.weight
            convolution.__class__ = _CLASSES[type(convolution)]
            convolution.packed = packed  # type: ignore[assignment]
            rectifier = rectifiers.get(convolution)
            convolution.rectifier = rectifier  # type: ignore[assignment]
            if rectifier:
                rectifier.skip()
        actual = [scores(module, each) for each in (inputs[:1], inputs)]
        is_right = all(agree(*each) for each in zip(actual, expected, strict=True))
    except Exception:
        is_right = False
    if is_right:
        return len(plain)
    for convolution, weight in plain.items():
        _unpack(convolution, weight)
    for rectifier in rectifiers.values():
        rectifier.restore()
    return 0


def _unpack(convolution: nn.Conv2d, weight: Tensor) -> None:
    for plain, packed in _CLASSES.items():
        if type(convolution) is packed:
            convolution.__class__ = plain
    for kept in ("packed", "rectifier"):
        vars(convolution).pop(kept, None)
    convolution.weight = weight


def _input_shapes(module: nn.Module, inputs: Tensor) -> dict[nn.Conv2d, torch.Size]:
    """Returns the shape in which the convolutions that can be packed got their input, when one run called them."""
    shapes: dict[nn.Conv2d, torch.Size] = {}

    def note(convolution: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(convolution, nn.Conv2d)
        if args[0].ndim == 4:
            shapes.setdefault(convolution, args[0].shape)

    handles = [
        child.register_forward_pre_hook(note)
        for child in module.modules()
        if type(child) in _CLASSES and child.padding_mode == "zeros" and not isinstance(child.padding, str)
    ]
    try:
        scores(module, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _ordered(convolution: nn.Conv2d, inputs: tuple[int, ...]) -> Tensor:
    with torch.no_grad():
        packed: Tensor = torch.ops.aten.mkldnn_reorder_conv2d_weight(
            convolution.weight.to_mkldnn(),
            convolution.padding,
            convolution.stride,
            convolution.dilation,
            convolution.groups,
            inputs,
        )
    return packed


def _order(packed: Tensor) -> list[int]:
    """Returns oneDNN's description of the order."""
    described: list[int] = torch.ops.mkldnn._get_mkldnn_serialized_md(packed).tolist()
    return described
