"""A version of a model: what it is, in which state, and how it is brought from its folder to a device."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine import device as devices
from camserve_server.engine.cam import METHODS
from camserve_server.engine.folding import fold_norms
from camserve_server.engine.golden import GoldenState, Tolerances, check_golden
from camserve_server.engine.inference import Explain, Outcome, infer
from camserve_server.engine.input_spec import InputSpec
from camserve_server.engine.labels import Label, check_published, read_labels
from camserve_server.engine.layers import find_layers
from camserve_server.engine.manifest import (
    FILE_NAME,
    Input,
    Manifest,
    Precision,
    UnloadableError,
    read_aliases,
    read_manifest,
)
from camserve_server.engine.packing import pack_weights
from camserve_server.engine.precision import has_bfloat16, lowered
from camserve_server.engine.preprocess import Preprocess
from camserve_server.engine.weights import load_module, weights_digest

State = Literal["loading", "ready", "unavailable", "retired"]
_AUTO = "auto"
# For how long passes are timed at the end of a load, the last of which may end later.
_MEASURED_S = 0.1
_UNKNOWN_INPUT = InputSpec(0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class ModelVersion:
    """One version, as listings show it and as its thread runs it.

    Only `state` "ready" has a module; `reason` says in plain words why a version
    is unavailable. `input` is 0 x 0 as long as it is not known. `layers` can be named for a
    heatmap, `default_layer` is what "auto" means, None where the module cannot be explained (a
    TorchScript program does not let its layers be watched). `content_hash` is the SHA-256 over manifest, labels and
    weights. `max_batch` is set where the module takes no larger batch, and `seconds_per_picture` is what one of a full
    batch took when it was warm, with its map. `precision` is what it works in, and `precision_reason` says why that is
    not what model.toml asks for. `memory_bytes` is what its parameters and buffers take once loaded, and
    `load_number` tells a version from the same one loaded again.
    """

    name: str
    version: str
    state: State
    aliases: tuple[str, ...] = ()
    reason: str | None = None
    labels: tuple[Label, ...] = ()
    labels_version: str = ""
    calibration_version: str = ""
    temperature: float = 1.0
    input: InputSpec = _UNKNOWN_INPUT
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layers: tuple[str, ...] = ()
    default_layer: str | None = None
    content_hash: str = ""
    golden: GoldenState = "none"
    golden_reason: str | None = None
    max_batch: int | None = None
    seconds_per_picture: float | None = None
    memory_bytes: int = 0
    load_number: int = 0
    precision: Precision = "float32"
    precision_reason: str | None = None
    module: nn.Module | None = field(default=None, repr=False)
    preprocess: Preprocess | None = field(default=None, repr=False)
    device: torch.device = field(default=torch.device("cpu"), repr=False)

    @property
    def key(self) -> tuple[str, str]:
        """Name and version."""
        return (self.name, self.version)

    @property
    def queue(self) -> tuple[str, str, int]:
        """Names the queue of this loading of the version."""
        return (self.name, self.version, self.load_number)

    def resolve(self, explain: Explain) -> Explain:
        """Returns `explain` with the layer's own name for "auto".

        Raises ApiError PARAM_LAYER_NOT_FOUND for a layer that cannot be used, PARAM_INVALID for an
        unknown method, PARAM_OUT_OF_RANGE for a target that is no class index.
        """
        if explain.method not in METHODS:
            raise ApiError(Reason.PARAM_INVALID, "There is no such heatmap method.", field="method")
        if explain.target is not None and not 0 <= explain.target < len(self.labels):
            raise ApiError(Reason.PARAM_OUT_OF_RANGE, "The target is no class of the model.", field="target")
        if self.default_layer is None:
            raise ApiError(Reason.PARAM_LAYER_NOT_FOUND, "The model has no layers for heatmaps.")
        if explain.layer == _AUTO:
            return replace(explain, layer=self.default_layer)
        if explain.layer not in self.layers:
            raise ApiError(Reason.PARAM_LAYER_NOT_FOUND)
        return explain

    def run(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        explains: Sequence[Explain | None],
        note_pass: Callable[[], None] = lambda: None,
    ) -> list[Outcome]:
        """Predicts N pictures (H, W, 3) uint8 of the input's size; on the thread that loaded it only.

        `explains` are resolved, one per picture; `note_pass` is called before each forward pass.
        """
        assert self.module is not None
        assert self.preprocess is not None
        return infer(
            self.module,
            self.preprocess(pictures),
            explains,
            temperature=self.temperature,
            synchronize=lambda: devices.synchronize(self.device),
            note_pass=note_pass,
        )


def load_version(
    folder: Path,
    device: torch.device,
    *,
    max_batch: int,
    weights_dir: Path | None,
    earlier: Sequence[Path] = (),
    precise: bool = False,
) -> ModelVersion:
    """Brings `<name>/<version>` to the device, warmed up with the explain path.

    `earlier` are the folders of the model's versions before it, with whose labels its own must agree. One that is
    `precise` works in float32, whatever its model.toml says, and has its weights as parameters.

    Whatever stands in the way makes a version of state "unavailable" with the reason; nothing is
    raised. The calling thread must be prepared, see `prepare_thread`.
    """
    name, version = folder.parent.name, folder.name
    try:
        return bring_version(
            folder, device, max_batch=max_batch, weights_dir=weights_dir, earlier=earlier, precise=precise
        )
    except UnloadableError as error:
        reason = str(error)
    except BaseException as error:
        structlog.get_logger().exception("model version failed to load", model=name, version=version)
        reason = f"loading failed ({type(error).__name__})"
    return ModelVersion(name, version, "unavailable", read_aliases(folder), reason=reason)


def bring_version(
    folder: Path,
    device: torch.device,
    *,
    max_batch: int,
    weights_dir: Path | None,
    earlier: Sequence[Path] = (),
    precise: bool = False,
) -> ModelVersion:
    """Does what `load_version` does; raises UnloadableError, and what the version's own code and files raise."""
    manifest = read_manifest(folder)
    check_published(manifest.labels_version, read_labels(folder, manifest.labels), earlier)
    return _load(folder, manifest, device, max_batch, weights_dir, precise)


def _load(
    folder: Path,
    manifest: Manifest,
    device: torch.device,
    max_batch: int,
    weights_dir: Path | None,
    precise: bool,
) -> ModelVersion:
    seen = _input_of(manifest)
    labels = read_labels(folder, manifest.labels)
    module = load_module(folder, manifest, weights_dir).to(device)
    is_program = manifest.weights.is_program
    preprocess = Preprocess(seen.mean, seen.std, device, channels_last=not is_program)
    shape = (max_batch, seen.height, seen.width, 3)
    noise = list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    if not is_program:
        fold_norms(module, preprocess(noise[:1]))
        module = module.to(memory_format=torch.channels_last)
    largest = _largest_batch(module, preprocess, noise, len(labels))
    layers = find_layers(module, preprocess(noise[:1]))
    default = layers.default if manifest.cam.layer == _AUTO else manifest.cam.layer
    if default is not None and default not in layers.names:
        raise UnloadableError("model.toml: cam.layer is no layer usable for a heatmap")
    ready = ModelVersion(
        name=manifest.name,
        version=manifest.version,
        state="ready",
        aliases=manifest.aliases,
        labels=labels,
        labels_version=manifest.labels_version,
        calibration_version=manifest.calibration.version,
        temperature=manifest.calibration.temperature,
        input=_spec_of(seen),
        mean=seen.mean,
        std=seen.std,
        layers=layers.names,
        default_layer=default,
        content_hash=content_hash(folder, manifest, weights_dir),
        max_batch=largest if largest < max_batch else None,
        memory_bytes=_memory_bytes(module),
        module=module,
        preprocess=preprocess,
        device=device,
    )
    if default is not None:
        outcomes = ready.run(noise[:largest], [Explain(default, "gradcam", None)] * largest)
        if any(outcome.disconnected for outcome in outcomes):
            raise UnloadableError("the default layer does not lead to the model's scores")
    ready = with_golden(folder, manifest, ready)
    if manifest.precision != "float32" and not precise:
        ready = _lowered(folder, manifest, ready, noise[:largest])
    if device.type == "cpu" and not is_program and not precise:
        assert ready.module is not None
        if pack_weights(ready.module, preprocess(noise[:largest])):
            ready = with_golden(folder, manifest, ready)
    return replace(ready, seconds_per_picture=_seconds_per_picture(ready, noise[:largest]))


def _lowered(folder: Path, manifest: Manifest, ready: ModelVersion, noise: list[NDArray[np.uint8]]) -> ModelVersion:
    """Returns a version in bfloat16 if that gives its golden answers, or without any those of float32; else itself."""
    try:
        low, reason = _in_bfloat16(folder, manifest, ready, noise)
    # Code of the module's own may know float32 only.
    except Exception as error:
        reason = f"bfloat16 fails ({type(error).__name__})"
    return replace(ready, precision_reason=reason) if reason else low


def _in_bfloat16(
    folder: Path, manifest: Manifest, ready: ModelVersion, noise: list[NDArray[np.uint8]]
) -> tuple[ModelVersion, str | None]:
    """Returns a version in bfloat16, and why it must not serve."""
    assert ready.module is not None
    assert ready.preprocess is not None
    if not has_bfloat16(ready.device):
        return ready, "the device has no bfloat16"
    if ready.golden == "failed":
        return ready, "its golden inputs fail in float32 as well"
    module = lowered(ready.module, ready.preprocess(noise[:1]))
    low = replace(ready, precision="bfloat16", module=module, memory_bytes=_memory_bytes(module))
    explains = [None if ready.default_layer is None else Explain(ready.default_layer, "gradcam", None)] * len(noise)
    alike = _is_alike(ready.run(noise, explains), low.run(noise, explains))
    if ready.golden == "none":
        return low, None if alike else "bfloat16 gives other probabilities"
    low = with_golden(folder, manifest, low)
    passed = low.golden == "passed"
    return low, None if passed else f"bfloat16 does not give the golden answers: {low.golden_reason}"


def _is_alike(expected: list[Outcome], actual: list[Outcome]) -> bool:
    one, other = (torch.stack([outcome.probs for outcome in each]) for each in (expected, actual))
    same_top = torch.equal(one.argmax(dim=1), other.argmax(dim=1))
    return same_top and bool((one - other).abs().max() <= Tolerances().prob)


def with_golden(folder: Path, manifest: Manifest, model: ModelVersion) -> ModelVersion:
    """Runs the version's golden inputs and returns it with what came out; on the thread that loaded it only."""
    if manifest.golden is None:
        return model
    golden, golden_reason = check_golden(folder, manifest.golden.file, model)
    return replace(model, golden=golden, golden_reason=golden_reason)


def golden_rerun(folder: Path, model: ModelVersion) -> ModelVersion:
    """Returns a loaded version with what its golden inputs come to now; on the thread that loaded it only."""
    try:
        return with_golden(folder, read_manifest(folder), model)
    except UnloadableError as error:
        return replace(model, golden="failed", golden_reason=str(error))


def input_spec(manifest: Manifest) -> InputSpec:
    """Returns the geometry of a version's input; raises UnloadableError where nothing says it."""
    return _spec_of(_input_of(manifest))


def _spec_of(seen: Input) -> InputSpec:
    return InputSpec(
        width=seen.width,
        height=seen.height,
        fit=seen.fit,
        resize_px=seen.resize_px,
        interpolation=seen.interpolation,
        pad_color=seen.pad_color,
    )


def _memory_bytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))


def _seconds_per_picture(model: ModelVersion, pictures: list[NDArray[np.uint8]]) -> float:
    explain = None if model.default_layer is None else Explain(model.default_layer, "gradcam", None)
    least, began = float("inf"), time.perf_counter()
    # Others may have kept the cores from the first.
    while time.perf_counter() - began < _MEASURED_S:
        started = time.perf_counter()
        model.run(pictures, [explain] * len(pictures))
        least = min(least, time.perf_counter() - started)
    return least / len(pictures)


def _input_of(manifest: Manifest) -> Input:
    if manifest.input is not None:
        return manifest.input
    if manifest.architecture is None or manifest.weights.torchvision is None:
        raise UnloadableError("model.toml: input is missing")
    from camserve_server.engine import torchvision_models

    name = manifest.architecture.builder.partition(":")[2]
    return torchvision_models.default_input(torchvision_models.find_weights(name, manifest.weights.torchvision))


def _largest_batch(module: nn.Module, preprocess: Preprocess, pictures: list[NDArray[np.uint8]], classes: int) -> int:
    """Returns how many pictures the module takes at once, all of them or one, and checks its output.

    An exported program may be fixed to one picture, and a module may mix the pictures of a batch.
    Raises UnloadableError.
    """
    alone = _scores(module, preprocess(pictures[:1]))
    if not isinstance(alone, Tensor) or alone.ndim != 2 or len(alone) != 1:
        raise UnloadableError("the model's output is not one row of scores per picture")
    if alone.shape[1] != classes:
        raise UnloadableError(f"the model has {alone.shape[1]} outputs and {classes} labels")
    try:
        together = _scores(module, preprocess(pictures))
    except Exception:
        return 1
    if not isinstance(together, Tensor) or together.shape != (len(pictures), classes):
        return 1
    off_by = (together[0] - alone[0]).abs().max()
    return len(pictures) if off_by <= 1e-3 * alone.abs().max().clamp(min=1) else 1


def _scores(module: nn.Module, inputs: Tensor) -> object:
    with torch.inference_mode():
        return module(inputs)


def content_hash(folder: Path, manifest: Manifest, weights_dir: Path | None) -> str:
    """Returns the SHA-256 over manifest, labels and weights."""
    digest = hashlib.sha256((folder / FILE_NAME).read_bytes())
    digest.update(repr(tuple(read_labels(folder, manifest.labels))).encode())
    digest.update(weights_digest(folder, manifest, weights_dir).encode())
    return digest.hexdigest()
