"""Which of a module's parts take what from each other, as one run shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle


@dataclass(slots=True)
class ModuleCall:
    """A call of one part; `node` made its output, which `readers` take on the way to the scores.

    `hooked` is a part on which somebody waits for calls.
    """

    name: str
    module: nn.Module
    hooked: bool
    node: Node | None
    readers: int = 0

    @property
    def source(self) -> Node | None:
        """The node that made the first of what its own node took."""
        return self.node.next_functions[0][0] if self.node and self.node.next_functions else None


def calls_of(module: nn.Module, inputs: Tensor, kinds: tuple[type[nn.Module], ...]) -> list[ModuleCall]:
    """Returns the calls of the parts of some kinds in the order in which they end, from one run with (N, 3, H, W).

    Raises whatever the module raises, which may be one that does not run with gradients.
    """
    calls: list[ModuleCall] = []

    def watch(name: str, child: nn.Module) -> RemovableHandle:
        hooked = bool(child._forward_hooks or child._forward_pre_hooks)

        def note(_: nn.Module, __: object, output: object) -> None:
            calls.append(ModuleCall(name, child, hooked, output.grad_fn if isinstance(output, Tensor) else None))

        return child.register_forward_hook(note)

    handles: list[RemovableHandle] = []
    try:
        for name, child in module.named_modules():
            # Torch takes no hooks on what is scripted.
            if name and isinstance(child, kinds) and not isinstance(child, torch.jit.ScriptModule):
                handles.append(watch(name, child))
        with torch.enable_grad():
            scores = module(inputs.detach().requires_grad_().clone())
    finally:
        for handle in handles:
            handle.remove()
    # The graph that gradients would go back by names every reader of every tensor, unlike the modules' calls.
    readers = _readers(scores.grad_fn) if isinstance(scores, Tensor) else {}
    for call in calls:
        call.readers = readers.get(call.node, 0)
    return calls


def _readers(end: Node | None) -> Counter[Node | None]:
    """Returns how many nodes of a graph lead to each of its nodes."""
    readers: Counter[Node | None] = Counter()
    seen, pending = {end}, [end]
    while pending:
        node = pending.pop()
        for before, _ in node.next_functions if node else ():
            readers[before] += 1
            if before not in seen:
                seen.add(before)
                pending.append(before)
    return readers
