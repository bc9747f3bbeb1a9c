"""Arithmetic in bfloat16: about twice as fast where the device multiplies it by itself, with three digits of seven."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from camserve_server.engine.folding import FoldedConv2d

# A heatmap's share of its peak by which bfloat16 may move it: its products have three digits each.
BFLOAT16_CAM = 0.05


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by itself; where that is emulated it is slower than float32."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not in every torch that we allow.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def lowered(module: nn.Module, inputs: Tensor) -> nn.Module:
    """Returns a copy of a frozen module that takes float32 (N, 3, H, W) and works in bfloat16.

    Where a linear layer gives the scores it stays in float32, as probabilities and gradients hang on it most.
    """
    head = _scoring_layer(module, inputs)
    low = copy.deepcopy(module).to(torch.bfloat16)
    low.register_forward_pre_hook(_to_bfloat16)
    for name, child in module.named_modules():
        if name == head:
            scoring = low.get_submodule(name).float()
            scoring.load_state_dict(child.state_dict())
            scoring.register_forward_pre_hook(_to_float32)
        elif isinstance(child, FoldedConv2d):
            # They tell the convolution's own map, which has few digits as it is.
            low.get_submodule(name).load_state_dict(dict(child.named_buffers()), strict=False, assign=True)
    return low


def _scoring_layer(module: nn.Module, inputs: Tensor) -> str | None:
    """Returns the name of the linear layer whose output is the module's, None where there is none."""
    outputs: dict[str, object] = {}
    handles = [
        child.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
        for name, child in module.named_modules()
        if name and isinstance(child, nn.Linear)
    ]
    try:
        with torch.inference_mode():
            scores = module(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return next((name for name, output in outputs.items() if output is scores), None)


def _to_bfloat16(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.to(torch.bfloat16) for each in inputs)


def _to_float32(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.float() for each in inputs)
