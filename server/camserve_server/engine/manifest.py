"""The description of a model version: `model.toml`, validated."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Precision = Literal["float32", "bfloat16"]

FILE_NAME = "model.toml"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# What a caller who names no version asks for: always an alias, so that no version answers by its name alone.
DEFAULT_ALIAS = "stable"


class UnloadableError(Exception):
    """Why a version cannot be served, in plain words without paths of the machine."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError("not a path inside the version's folder")
    return path


Name = Annotated[str, Field(pattern=NAME_PATTERN)]
InnerPath = Annotated[str, AfterValidator(_inside)]
Side = Annotated[int, Field(ge=1, le=4096)]
Channel = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Architecture(_Table):
    """What builds the module: "package.module:callable" or "torchvision:<name>", and its arguments."""

    builder: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]+:[A-Za-z0-9_.]+$")]
    arguments: dict[str, Any] = {}


class Weights(_Table):
    """Where the numbers come from: exactly one of `file`, `torchvision` and `random`.

    `file` is a safetensors state dict, or with `format` a whole program. A program is code, so its
    `sha256` must be given. `random` seeds an initialisation, for tests and benchmarks.
    """

    file: InnerPath | None = None
    format: Literal["safetensors", "torchscript", "exported"] = "safetensors"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    torchvision: str | None = None
    random: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.file, self.torchvision, self.random)) != 1:
            raise ValueError("exactly one of file, torchvision and random")
        if self.format != "safetensors" and self.file is None:
            raise ValueError("a format needs a file")
        if self.format != "safetensors" and self.sha256 is None:
            raise ValueError("a program needs its sha256")
        return self

    @property
    def is_program(self) -> bool:
        """Whether the file holds the module as well."""
        return self.format != "safetensors"


class Input(_Table):
    """The model's input in pixels, how pictures are fitted, and the normalisation on the 0-1 scale."""

    width: Side
    height: Side
    fit: Literal["crop", "pad", "squash"] = "crop"
    resize_px: Side | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Deviation, Deviation, Deviation] = (0.229, 0.224, 0.225)
    pad_color: tuple[Channel, Channel, Channel] = (128, 128, 128)


class Calibration(_Table):
    """The temperature that logits are divided by before the softmax, and its version."""

    temperature: Annotated[float, Field(gt=0, le=1000)] = 1.0
    version: str = "1"


class Cam(_Table):
    """The default layer of heatmaps: a module's name, or "auto"."""

    layer: str = "auto"


class Golden(_Table):
    """The file of inputs with known answers."""

    file: InnerPath


class Manifest(_Table):
    """One version of one model, as its file describes it."""

    name: Name
    version: Name
    aliases: tuple[Name, ...] = ()
    labels: InnerPath
    labels_version: str = "1"
    precision: Precision = "float32"
    architecture: Architecture | None = None
    weights: Weights
    input: Input | None = None
    calibration: Calibration = Calibration()
    cam: Cam = Cam()
    golden: Golden | None = None

    @model_validator(mode="after")
    def _has_module(self) -> Self:
        if self.weights.is_program == (self.architecture is not None):
            raise ValueError("an architecture for weights, none for a program")
        if self.weights.is_program and self.precision != "float32":
            raise ValueError("a program has the precision that it was made with")
        return self


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks `folder`/model.toml of `<name>/<version>`; raises UnloadableError."""
    try:
        table = tomllib.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    except OSError:
        raise UnloadableError("model.toml cannot be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise UnloadableError("model.toml is not valid TOML") from None
    try:
        manifest = Manifest.model_validate(table)
    except ValidationError as error:
        raise UnloadableError(_explain(error)) from None
    if manifest.version == DEFAULT_ALIAS:
        raise UnloadableError(f"{DEFAULT_ALIAS} is an alias of every model, and no version's name")
    if manifest.name != folder.parent.name or manifest.version != folder.name:
        raise UnloadableError("name and version in model.toml differ from the folders' names")
    return manifest


def read_aliases(folder: Path) -> tuple[str, ...]:
    """Returns the aliases of a version whose manifest may be faulty otherwise; empty when unreadable."""
    try:
        aliases = tomllib.loads((folder / FILE_NAME).read_text(encoding="utf-8")).get("aliases", ())
    except (OSError, ValueError):
        return ()
    return tuple(alias for alias in aliases if isinstance(alias, str)) if isinstance(aliases, list) else ()


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "its tables"
    match first["type"]:
        case "missing":
            return f"model.toml: {where} is missing"
        case "extra_forbidden":
            return f"model.toml: {where} is not a known key"
        case "value_error":
            return f"model.toml: {where}: {first['ctx']['error']}"
        case _:
            return f"model.toml: {where} has no valid value"
