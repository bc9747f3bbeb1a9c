"""`camserve models add`: what was asked for in words, as what the engine adds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camserve_server.base.config import Settings
from camserve_server.cli.model_routes import check_no_alias
from camserve_server.engine.manifest import DEFAULT_ALIAS

if TYPE_CHECKING:
    from camserve_server.engine.new_version import Format, NewVersion

_IMAGENET = "imagenet"


def new_version(
    settings: Settings,
    name: str,
    version: str,
    *,
    files: Mapping[Format, Path | None],
    builder: str | None,
    arguments: str | None,
    labels: str | None,
    labels_version: str,
    size: str | None,
    fit: str | None,
    resize: int | None,
    interpolation: str | None,
    mean: str | None,
    std: str | None,
    pad_color: str | None,
    layer: str,
    precision: str,
    aliases: list[str] | None,
) -> NewVersion:
    """Returns what is to be added; raises ValueError for words that make no sense together."""
    from camserve_server.engine.new_version import NewVersion

    given = [(kind, file) for kind, file in files.items() if file]
    if len(given) > 1:
        raise ValueError("one of --weights, --torchscript and --exported, not several")
    if given and labels is None:
        raise ValueError("a file needs --labels")
    seen = {
        "fit": fit,
        "resize_px": resize,
        "interpolation": interpolation,
        "mean": _numbers("--mean", mean, float),
        "std": _numbers("--std", std, float),
        "pad_color": _numbers("--pad-color", pad_color, int),
    } | _size(size)
    return NewVersion(
        name=name,
        version=version,
        format=given[0][0] if given else "state",
        weights=given[0][1] if given else None,
        builder=builder,
        arguments=_arguments(arguments),
        labels=None if labels in (None, _IMAGENET) else Path(labels or ""),
        labels_version=labels_version,
        input={key: value for key, value in seen.items() if value is not None},
        layer=layer,
        precision=precision,
        aliases=tuple(aliases) if aliases is not None else _first_alias(settings, name),
    )


def add(settings: Settings, new: NewVersion, golden: Path | None, say: Callable[[str], None]) -> str:
    """Adds a version and returns what to tell; raises ValueError when it cannot be added."""
    from camserve_server.base.cores import cores
    from camserve_server.engine.adding import Place, add_version
    from camserve_server.engine.device import choose_device
    from camserve_server.engine.manifest import UnloadableError

    pictures = sorted(path for path in golden.iterdir() if path.is_file()) if golden else []
    if golden and not pictures:
        raise ValueError(f"{golden} holds no pictures")
    check_no_alias(settings, new.name, new.version)
    place = Place(
        _models_dirs(settings),
        settings.data_dir / "weights",
        choose_device(settings.device),
        settings.torch_threads or cores(),
        settings.max_batch,
    )
    try:
        folder = add_version(new, pictures, place, say)
    except UnloadableError as error:
        raise ValueError(f"{new.name} {new.version} is not added: {error}") from None
    return f"{new.name} {new.version} is in {folder}; running servers load it"


def _models_dirs(settings: Settings) -> tuple[Path, ...]:
    return (settings.models_dir, settings.data_dir / "models")


def _first_alias(settings: Settings, name: str) -> tuple[str, ...]:
    has_versions = any(any(models_dir.glob(f"{name}/*/model.toml")) for models_dir in _models_dirs(settings))
    return () if has_versions else (DEFAULT_ALIAS,)


def _arguments(text: str | None) -> dict[str, Any]:
    try:
        arguments = json.loads(text) if text else {}
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise ValueError("--arguments is no JSON object")
    return arguments


def _numbers(option: str, text: str | None, kind: type[float] | type[int]) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise ValueError(f"{option} is three numbers with commas between them")
    return numbers


def _size(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    sides = text.split("x")
    if not all(side.isdecimal() for side in sides) or len(sides) > 2:
        raise ValueError("--size is like 224 or 320x240")
    return {"width": int(sides[0]), "height": int(sides[-1])}
