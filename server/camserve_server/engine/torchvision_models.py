"""Classifiers that torchvision builds and has weights for; imported only when one is used."""

from __future__ import annotations

import pickle
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from camserve_server.engine.light_torchvision import light_models
from camserve_server.engine.manifest import Input, UnloadableError

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

# What torchvision's own builders set when they are given weights.
_TRAINED_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
}
_REACH_TIMEOUT_S = 10.0


def classifier_names() -> list[str]:
    """Returns the names that `build` takes."""
    models = light_models()
    return list(models.list_models(module=models))


def build(name: str, arguments: dict[str, Any], *, trained: bool) -> nn.Module:
    """Builds an untrained classifier; `trained` gives it the form that the published weights have.

    Raises UnloadableError for a name that torchvision does not have.
    """
    if name not in classifier_names():
        raise UnloadableError("torchvision has no classifier of that name")
    extra = _TRAINED_ARGUMENTS.get(name, {}) if trained else {}
    return cast("nn.Module", light_models().get_model(name, weights=None, **{**extra, **arguments}))


def find_weights(name: str, which: str) -> WeightsEnum:
    """Returns a member of the classifier's weights enum, such as "DEFAULT"; raises UnloadableError."""
    if name not in classifier_names():
        raise UnloadableError("torchvision has no classifier of that name")
    enum = light_models().get_model_weights(name)
    if which not in enum.__members__:
        raise UnloadableError("torchvision has no such weights for the classifier")
    return cast("WeightsEnum", enum[which])


def cached_file(weights: WeightsEnum, folder: Path | None) -> Path:
    """Returns where the weights lie once downloaded: in `folder`, or in torch's hub cache."""
    parent = folder or Path(torch.hub.get_dir()) / "checkpoints"
    return parent / str(weights.url).rsplit("/", 1)[-1]


def load_weights(weights: WeightsEnum, folder: Path | None) -> dict[str, Any]:
    """Returns the state dict from the cache, downloading it first where it is not there.

    A download is checked against the hash in its file name, and nothing but tensors is unpickled.
    Raises UnloadableError when the weights are neither cached nor to be had within a short time.
    """
    if not cached_file(weights, folder).exists() and not _is_reachable(str(weights.url)):
        raise UnloadableError("weights are not in the cache and cannot be downloaded")
    keywords = {} if folder is None else {"model_dir": str(folder)}
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True, **keywords)
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise UnloadableError(f"the weights cannot be loaded ({type(error).__name__})") from error
    return dict(state)


def default_input(weights: WeightsEnum) -> Input:
    """Returns the preprocessing that the weights were published with."""
    transforms = weights.transforms()
    side = transforms.crop_size[0]
    return Input(
        width=side,
        height=side,
        fit="crop",
        resize_px=transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _is_reachable(url: str) -> bool:
    """Asks for the headers only, with a timeout, which torch's own download does not have."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_REACH_TIMEOUT_S):
            return True
    except (urllib.error.URLError, OSError):
        return False
