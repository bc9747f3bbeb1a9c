"""One batch through a model: probabilities for every picture and raw maps for those that ask."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camserve_server.engine.cam import METHODS
from camserve_server.engine.folding import FoldedConv2d


@dataclass(frozen=True, slots=True)
class Explain:
    """What one picture's heatmap shows.

    `layer` is a module's name or "auto"; `method` a key of `cam.METHODS`; `target` a class index,
    None for the top class.
    """

    layer: str
    method: str
    target: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """One picture's result on the host.

    `probs` is (C,) float32 summing to 1; `cam` (h, w) float32 >= 0, None when not asked for or
    when the layer does not lead to the scores (then `disconnected` is True).
    """

    probs: Tensor
    cam: Tensor | None
    target: int | None
    disconnected: bool
    inference_ms: float
    cam_ms: float


class Tap:
    """A forward hook that cuts the graph at a layer and keeps what flows on.

    The layer's output is handed on as a copy of a fresh leaf: the layers before record nothing,
    and operations in place after it (ReLU, residual sums) change the copy, not the leaf.
    `activations` is that copy as such operations left it, which is also what pytorch-grad-cam
    sees, since its stored activations share the output's memory.
    """

    def __init__(self) -> None:
        self.leaf: Tensor | None = None
        self.activations: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Replaces the layer's output (N, C, h, w)."""
        if isinstance(module, FoldedConv2d):
            # Asked for is the convolution's own map; the scores are those of any other layer.
            self.leaf = module.unnormalised(args[0].detach()).requires_grad_()
            self.activations = self.leaf.clone()
            followed = module.normalised(self.activations).to(output.dtype)
            return output.detach() + (followed - followed.detach())
        self.leaf = output.detach().requires_grad_()
        self.activations = self.leaf.clone()
        return self.activations


def infer(
    module: nn.Module,
    inputs: Tensor,
    explains: Sequence[Explain | None],
    *,
    temperature: float,
    synchronize: Callable[[], None],
    note_pass: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Runs normalised `inputs` (N, 3, H, W) through a frozen module in eval mode.

    Each distinct layer costs one forward; pictures without a heatmap ride along with the largest
    group. Layers must be resolved names. `synchronize` waits for the device, for the timings;
    `note_pass` is called before each forward. Call it from one thread per module: hooks live on
    the module while it runs.
    """
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for row, explain in enumerate(explains):
        if explain is not None:
            groups[explain.layer].append(row)
    plain = [row for row, explain in enumerate(explains) if explain is None]
    outcomes: dict[int, Outcome] = {}
    for layer, rows in sorted(groups.items(), key=lambda group: -len(group[1])):
        rows = sorted(rows + plain)
        plain = []
        note_pass()
        chosen = inputs if len(rows) == len(explains) else inputs[rows]
        batch = [explains[row] for row in rows]
        results = _infer_explained(module, chosen, batch, layer, temperature, synchronize)
        outcomes.update(zip(rows, results, strict=True))
    if plain:
        note_pass()
        results = _infer_plain(module, inputs, temperature, synchronize)
        outcomes.update(zip(plain, results, strict=True))
    return [outcomes[row] for row in range(len(explains))]


def _infer_plain(
    module: nn.Module, inputs: Tensor, temperature: float, synchronize: Callable[[], None]
) -> list[Outcome]:
    started = time.perf_counter()
    with torch.inference_mode():
        probs = _probabilities(module(inputs), temperature)
    synchronize()
    inference_ms = (time.perf_counter() - started) * 1000
    return [Outcome(row, None, None, False, inference_ms, 0.0) for row in probs]


def _infer_explained(
    module: nn.Module,
    inputs: Tensor,
    explains: Sequence[Explain | None],
    layer: str,
    temperature: float,
    synchronize: Callable[[], None],
) -> list[Outcome]:
    started = time.perf_counter()
    tap = Tap()
    handle = module.get_submodule(layer).register_forward_hook(tap)
    try:
        with torch.enable_grad():
            logits = module(inputs)
    finally:
        handle.remove()
    scores = logits.detach()
    probs = _probabilities(scores, temperature)
    targets = _targets(scores, explains)
    synchronize()
    forwarded = time.perf_counter()
    maps = _maps(tap, logits, targets, explains)
    synchronize()
    inference_ms = (forwarded - started) * 1000
    cam_ms = (time.perf_counter() - forwarded) * 1000
    return [
        Outcome(probs[row], None, None, False, inference_ms, 0.0)
        if explain is None
        else Outcome(probs[row], maps.get(row), targets[row], row not in maps, inference_ms, cam_ms)
        for row, explain in enumerate(explains)
    ]


def _probabilities(logits: Tensor, temperature: float) -> Tensor:
    return torch.softmax(logits.float() / temperature, dim=1).cpu()


def _targets(scores: Tensor, explains: Sequence[Explain | None]) -> list[int]:
    top: list[int] = scores.argmax(dim=1).tolist()
    return [
        top[row] if explain is None or explain.target is None else explain.target
        for row, explain in enumerate(explains)
    ]


def _maps(tap: Tap, logits: Tensor, targets: Sequence[int], explains: Sequence[Explain | None]) -> dict[int, Tensor]:
    """Returns the rows' maps on the host; a row is absent where the layer does not lead to the scores."""
    by_method: defaultdict[str, list[int]] = defaultdict(list)
    for row, explain in enumerate(explains):
        if explain is not None:
            by_method[explain.method].append(row)
    if tap.leaf is None or tap.activations is None:
        return {}
    gradients: Tensor | None = None
    if any(METHODS[method].needs_gradients for method in by_method) and logits.requires_grad:
        rows = [row for row, explain in enumerate(explains) if explain is not None]
        # Samples do not interact in eval mode, so one backward over the summed scores gives each
        # image the gradient it would have had alone.
        total = logits[rows, [targets[row] for row in rows]].sum()
        found = torch.autograd.grad(total, tap.leaf, allow_unused=True)[0]
        gradients = None if found is None else _whole(found)
    activations = _whole(tap.activations.detach())
    maps: dict[int, Tensor] = {}
    with torch.no_grad():
        for name, rows in by_method.items():
            method = METHODS[name]
            if method.needs_gradients and gradients is None:
                continue
            chosen = activations[rows]
            raw = method.compute(chosen, chosen if gradients is None else gradients[rows])
            maps.update(zip(rows, raw.clamp(min=0).float().cpu(), strict=True))
    return maps


def _whole(values: Tensor) -> Tensor:
    """Returns them with no less than float32's digits: sums over a map would use up those of bfloat16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
