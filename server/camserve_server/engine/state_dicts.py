"""State dicts of others, as safetensors or torch files, brought into one form."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from camserve_server.engine.manifest import UnloadableError

# Under which names training scripts put the state dict beside what else they keep.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# What DataParallel puts before every name.
_PARALLEL = "module."


def write_state(source: Path, target: Path) -> None:
    """Writes the state dict of a safetensors or torch file as safetensors; nothing but tensors is unpickled.

    Raises UnloadableError.
    """
    state = _tensors(_read(source))
    if all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    # Tensors that share memory, as tied weights do, are written once each.
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, target)


def _tensors(loaded: object) -> dict[str, Tensor]:
    """Returns the state dict, which may lie in a dict of other things."""
    if isinstance(loaded, dict):
        wrapped = [loaded[name] for name in _WRAPPERS if isinstance(loaded.get(name), dict)]
        state = wrapped[0] if wrapped else loaded
        if state and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            return state
    raise UnloadableError("the weights file holds no state dict of tensors")


def _read(source: Path) -> object:
    try:
        return load_file(source)
    except SafetensorError:
        pass
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    # Bytes that are no pickle raise what their opcodes happen to be, an archive that is cut off an OSError.
    except Exception as error:
        raise UnloadableError(
            f"the weights file is neither safetensors nor a torch file of tensors ({type(error).__name__})"
        ) from None
