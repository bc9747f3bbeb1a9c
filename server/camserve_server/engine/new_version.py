"""A version that somebody wants to add: its files written as a version's folder has them."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from camserve_server.engine.labels import IMAGENET
from camserve_server.engine.manifest import FILE_NAME, UnloadableError
from camserve_server.engine.state_dicts import write_state
from camserve_server.engine.toml_writer import to_toml

Format = Literal["state", "torchscript", "exported"]

LABELS_NAME = "labels.json"
_TORCHVISION = "torchvision"


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What becomes a version.

    `weights` is a file of `format`, None for those that torchvision publishes. `builder` and `arguments` make the
    module of a state dict, as in model.toml. `labels` None are ImageNet's. `input` has keys of model.toml's table;
    those that a torchvision classifier leaves open are the ones its weights were published with.
    """

    name: str
    version: str
    format: Format = "state"
    weights: Path | None = None
    builder: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    labels_version: str = "1"
    input: dict[str, Any] = field(default_factory=dict)
    layer: str = "auto"
    precision: str = "float32"
    aliases: tuple[str, ...] = ()


def write_version(new: NewVersion, folder: Path, *, golden: str) -> None:
    """Writes model.toml, labels and weights into an empty folder; `golden` is what model.toml calls the golden inputs.

    Raises UnloadableError for what can be seen to be wrong without loading it.
    """
    builder = new.builder
    if new.weights is None and builder is None:
        builder = f"{_TORCHVISION}:{new.name}"
    if (builder is None) == (new.format == "state"):
        raise UnloadableError("a state dict needs a builder, and a program has none")
    tables: dict[str, dict[str, Any]] = {}
    if builder:
        tables["architecture"] = {"builder": builder} | ({"arguments": new.arguments} if new.arguments else {})
    tables["weights"] = _write_weights(new, folder, builder)
    tables["input"] = _default_input(builder, resized="width" not in new.input) | new.input
    tables["cam"] = {"layer": new.layer}
    tables["golden"] = {"file": golden}
    labels = IMAGENET
    if new.labels:
        labels = LABELS_NAME
        (folder / LABELS_NAME).write_text(json.dumps(_labels(new.labels), ensure_ascii=False, indent=1) + "\n")
    top = {
        "name": new.name,
        "version": new.version,
        "aliases": list(new.aliases),
        "labels": labels,
        "labels_version": new.labels_version,
        "precision": new.precision,
    }
    (folder / FILE_NAME).write_text(to_toml(top | tables), encoding="utf-8")


def _write_weights(new: NewVersion, folder: Path, builder: str | None) -> dict[str, Any]:
    if new.weights is None:
        from camserve_server.engine import torchvision_models

        assert builder is not None
        # The enum's own name of its default, so that a later torchvision cannot change the version.
        return {"torchvision": torchvision_models.find_weights(builder.partition(":")[2], "DEFAULT").name}
    if new.format == "state":
        file = folder / "weights.safetensors"
        write_state(new.weights, file)
    else:
        file = folder / f"program.{'pt' if new.format == 'torchscript' else 'pt2'}"
        shutil.copyfile(new.weights, file)
    with file.open("rb") as written:
        table = {"file": file.name, "sha256": hashlib.file_digest(written, "sha256").hexdigest()}
    return table if new.format == "state" else table | {"format": new.format}


def _default_input(builder: str | None, *, resized: bool) -> dict[str, Any]:
    package, _, name = (builder or "").partition(":")
    if package != _TORCHVISION:
        return {}
    from camserve_server.engine import torchvision_models

    published = torchvision_models.default_input(torchvision_models.find_weights(name, "DEFAULT"))
    # The side before the crop belongs to the published size and to no other.
    unused = {"pad_color"} if resized else {"pad_color", "resize_px"}
    return published.model_dump(exclude_none=True, exclude=unused)


def _labels(file: Path) -> list[dict[str, str]]:
    """Reads a JSON list of {"id", "label"} or of words, or a text of a class per line, id and label apart by a tab."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UnloadableError("the labels file is not UTF-8") from None
    try:
        rows = json.loads(text)
    except ValueError:
        rows = [line.split("\t", 1) for line in text.splitlines() if line.strip()]
        rows = [{"id": parts[0].strip(), "label": parts[-1].strip()} for parts in rows]
    if not isinstance(rows, list):
        raise UnloadableError("the labels file is no list")
    return [row if isinstance(row, dict) else {"id": str(row), "label": str(row)} for row in rows]
