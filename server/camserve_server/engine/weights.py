"""A version's module: built or deserialised, its weights checked and filled in, frozen."""

from __future__ import annotations

import hashlib
import importlib
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from camserve_server.engine.manifest import Architecture, Manifest, UnloadableError, Weights, read_manifest

_TORCHVISION = "torchvision"
_BLOCK_BYTES = 1 << 20

# Of an archive that it cannot read torch logs a traceback beside the error that it raises.
logging.getLogger("torch.export").addFilter(lambda record: record.exc_info is None)


def load_module(folder: Path, manifest: Manifest, weights_dir: Path | None) -> nn.Module:
    """Returns the version's module in eval mode, parameters frozen, on the CPU.

    State dicts are safetensors or torchvision's own files read tensors-only; nothing else is
    unpickled. A whole program (TorchScript, exported) is accepted only under the digest in
    model.toml, because deserialising one can run code. Raises UnloadableError.
    """
    weights = manifest.weights
    file = None if weights.file is None else _checked(folder / weights.file, weights.sha256)
    if manifest.architecture is None:
        assert file is not None
        return _load_program(file, weights)
    if weights.random is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights.random)
            return _frozen(_build(manifest.architecture, trained=False))
    if weights.torchvision is not None:
        return _frozen(_with_published(manifest.architecture, weights.torchvision, weights_dir))
    assert file is not None
    try:
        state = load_file(file)
    except (SafetensorError, OSError):
        raise UnloadableError("the weights file is not safetensors") from None
    return _frozen(_filled(_build(manifest.architecture, trained=False), state))


def file_bytes(folder: Path) -> int:
    """Returns the size of a version's weights file, which is about what it takes once loaded; 0 where there is none."""
    try:
        file = read_manifest(folder).weights.file
        return (folder / file).stat().st_size if file else 0
    except (UnloadableError, OSError):
        return 0


def weights_digest(folder: Path, manifest: Manifest, weights_dir: Path | None) -> str:
    """Returns the SHA-256 of the weights' file, empty for random weights."""
    if manifest.weights.file is not None:
        return _sha256(folder / manifest.weights.file)
    if manifest.weights.torchvision is not None and manifest.architecture is not None:
        from camserve_server.engine import torchvision_models

        name = manifest.architecture.builder.partition(":")[2]
        weights = torchvision_models.find_weights(name, manifest.weights.torchvision)
        return _sha256(torchvision_models.cached_file(weights, weights_dir))
    return ""


def _with_published(architecture: Architecture, which: str, weights_dir: Path | None) -> nn.Module:
    package, _, name = architecture.builder.partition(":")
    if package != _TORCHVISION:
        raise UnloadableError("torchvision weights need a torchvision builder")
    from camserve_server.engine import torchvision_models

    weights = torchvision_models.find_weights(name, which)
    state = torchvision_models.load_weights(weights, weights_dir)
    return _filled(_build(architecture, trained=True), state)


def _build(architecture: Architecture, *, trained: bool) -> nn.Module:
    package, _, name = architecture.builder.partition(":")
    # Some builders announce on every call that their initialisation is slow or will change.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == _TORCHVISION:
            from camserve_server.engine import torchvision_models

            return torchvision_models.build(name, architecture.arguments, trained=trained)
        try:
            builder = getattr(importlib.import_module(package), name)
        except (ImportError, AttributeError) as error:
            raise UnloadableError(f"the builder cannot be imported ({type(error).__name__})") from None
        module = builder(**architecture.arguments)
    if not isinstance(module, nn.Module):
        raise UnloadableError("the builder does not return a module")
    return module


def _filled(module: nn.Module, state: dict[str, Any]) -> nn.Module:
    try:
        module.load_state_dict(state)
    except RuntimeError:
        raise UnloadableError("the weights do not fit the architecture") from None
    return module


def _load_program(file: Path, weights: Weights) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if weights.format == "torchscript":
                return _frozen(torch.jit.load(str(file), map_location="cpu"))  # type: ignore[no-untyped-call]
            # Unflattened, the program has its modules back, and with them the layers of heatmaps.
            return _frozen(torch.export.unflatten(torch.export.load(str(file))))
        # Of a damaged archive each of its parts raises something else.
        except Exception as error:
            raise UnloadableError(f"the program cannot be loaded ({type(error).__name__})") from error


def _frozen(module: nn.Module) -> nn.Module:
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False
    return module


def _checked(file: Path, sha256: str | None) -> Path:
    if not file.is_file():
        raise UnloadableError("the weights file is missing")
    if sha256 is not None and _sha256(file) != sha256:
        raise UnloadableError("the weights file does not have the sha256 in model.toml")
    return file


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
