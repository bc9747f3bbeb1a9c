"""Rectifiers that a packed convolution applies itself, while it still has the values at hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn

from camserve_server.engine.calls import calls_of

_MARK = "camserve_rectified"


@dataclass(frozen=True, slots=True)
class Rectifier:
    """The rectifier that alone takes a convolution's output, by oneDNN's name with its bounds.

    `seen` are the modules whose output is the convolution's own: who waits for calls of one gets it as it is.
    """

    name: str
    bounds: list[float]
    module: nn.Module
    seen: tuple[nn.Module, ...]

    @property
    def is_due(self) -> bool:
        """Whether the convolution may apply it in this call."""
        return not any(module._forward_hooks for module in self.seen)

    def skip(self) -> None:
        """Has its module leave as it is what came rectified."""
        self.module.__class__ = _SKIPPING.get(type(self.module), type(self.module))

    def restore(self) -> None:
        """Makes its module what it was."""
        for plain, skipping in _SKIPPING.items():
            if type(self.module) is skipping:
                self.module.__class__ = plain


class _SkippingReLU(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input if _take_mark(input) else super().forward(input)


class _SkippingReLU6(nn.ReLU6):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return input if _take_mark(input) else super().forward(input)


# Applied twice they give what they give once, so that a mark that gets lost costs time and nothing else.
_NAMES: dict[type[nn.Module], tuple[str, list[float]]] = {nn.ReLU: ("relu", []), nn.ReLU6: ("hardtanh", [0.0, 6.0])}
_SKIPPING: dict[type[nn.Module], type[nn.Module]] = {nn.ReLU: _SkippingReLU, nn.ReLU6: _SkippingReLU6}


def mark_rectified(output: Tensor) -> Tensor:
    """Returns a convolution's output, which the rectifier after it then leaves as it is."""
    setattr(output, _MARK, True)
    return output


def _take_mark(values: Tensor) -> bool:
    # Once only: what is done to them afterwards is no longer the convolution's.
    return bool(vars(values).pop(_MARK, False))


def find_rectifiers(module: nn.Module, inputs: Tensor) -> dict[nn.Module, Rectifier]:
    """Returns the convolutions of a frozen module in eval mode after which there is one, as a run with `inputs` shows.

    `inputs` are (N, 3, H, W).
    """
    # A module that does not run with gradients keeps its rectifiers.
    try:
        calls = calls_of(module, inputs, (nn.Module,))
    except Exception:
        return {}
    found = Counter(call.name for call in calls)
    uses = Counter(id(child) for _, child in module.named_modules(remove_duplicate=False))
    made = {call.node: call for call in calls if call.node and isinstance(call.module, nn.Conv2d)}
    rectifiers: dict[nn.Module, Rectifier] = {}
    for call in calls:
        # What was done in place to the convolution's output stands between the two as another node.
        source = made.get(call.source) if call.source else None
        # Subclasses may do something else.
        if source is None or type(call.module) not in _NAMES:
            continue
        if source.readers == found[source.name] == uses[id(source.module)] == 1 and not source.hooked:
            seen = tuple(other.module for other in calls if other.node is source.node)
            rectifiers[source.module] = Rectifier(*_NAMES[type(call.module)], call.module, seen)
    return rectifiers
