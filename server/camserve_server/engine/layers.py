"""Which layers of a model can be explained, and which one stands for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layers:
    """Names of modules usable for a heatmap, in order of completion, and the one for "auto".

    `default` is None when there is none.
    """

    names: tuple[str, ...]
    default: str | None


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    convolution: bool
    map_size: tuple[int, int] | None
    channels_last_size: tuple[int, int] | None
    follows_input: bool


def find_layers(module: nn.Module, inputs: Tensor) -> Layers:
    """Runs `inputs` (1, 3, H, W) once and looks at what every module gives out.

    Usable is a module called exactly once whose output is a map (N, C, h, w), h * w > 1. Outputs
    (N, h, w, C), as in ConvNeXt's blocks, are told from maps by their shape: a map keeps the
    input's aspect ratio and is no larger.
    """
    calls = _record(module, inputs)
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.name] = counts.get(call.name, 0) + 1
    usable = [call for call in calls if counts[call.name] == 1 and call.follows_input]
    return Layers(tuple(call.name for call in usable), _default(calls, usable))


def _record(module: nn.Module, inputs: Tensor) -> list[_Call]:
    calls: list[_Call] = []
    input_size = (inputs.shape[2], inputs.shape[3])
    handles = [
        child.register_forward_hook(_Recorder(calls, name, isinstance(child, nn.Conv2d), input_size))
        for name, child in module.named_modules()
        if name and not isinstance(child, torch.jit.ScriptModule)
    ]
    try:
        with torch.inference_mode():
            module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@dataclass(frozen=True, slots=True)
class _Recorder:
    calls: list[_Call]
    name: str
    convolution: bool
    input_size: tuple[int, int]

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 4 or not output.is_floating_point():
            self.calls.append(_Call(self.name, self.convolution, None, None, False))
            return
        _, first, second, third = output.shape
        usable = _is_map((second, third), self.input_size)
        self.calls.append(_Call(self.name, self.convolution, (second, third), (first, second), usable))


def _is_map(size: tuple[int, int], input_size: tuple[int, int]) -> bool:
    height, width = size
    if height * width <= 1 or height > input_size[0] or width > input_size[1]:
        return False
    # Rounding and missing padding at each stride take a pixel or two from a side.
    expected = height * input_size[1] / input_size[0]
    return abs(width - expected) <= max(3.0, 0.15 * expected)


def _default(calls: list[_Call], usable: list[_Call]) -> str | None:
    """Returns the outermost module that still gives out the map of the last convolution.

    From the last convolution on, modules of the same map size are candidates (its normalisation,
    its block, its stage) until one gives out a map of another size (a pooling, a flattening after
    it comes too late to matter). Outputs 1 x 1 are gates inside a block, not an end. The fewest
    dots win, the later among equals. Without a convolution the last usable module is taken.
    """
    convolutions = [i for i, call in enumerate(calls) if call.convolution and call.follows_input]
    if not convolutions:
        return usable[-1].name if usable else None
    size = calls[convolutions[-1]].map_size
    allowed = {call.name for call in usable}
    best: str | None = None
    for call in calls[convolutions[-1] :]:
        if call.map_size in (None, (1, 1)):
            continue
        if call.map_size == size:
            if call.name in allowed and (best is None or call.name.count(".") <= best.count(".")):
                best = call.name
        elif call.channels_last_size != size:
            break
    return best
