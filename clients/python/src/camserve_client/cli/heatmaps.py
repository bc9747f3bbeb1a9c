"""Where heatmaps go, and what is said of them: checked before an image is sent, and charged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import typer

from camserve_client.contents import ImageSource

_ENDINGS = (".png", ".npy")
_OF_HEATMAPS = ("method", "layer", "target", "colormap", "overlay", "npy", "show")


def only_with_cam(ctx: typer.Context) -> None:
    """Raises BadParameter for an option of heatmaps that was given where none is asked for."""
    for name in _OF_HEATMAPS:
        source = ctx.get_parameter_source(name)
        # Nothing is shown without --cam either.
        if source and source.name == "COMMANDLINE" and not (name == "show" and not ctx.params[name]):
            raise typer.BadParameter("it is about heatmaps: add --cam", param_hint=f"--{name}")


def file_for(cam: Path, name: str, source: ImageSource, *, npy: bool) -> Path:
    """Returns the file for the heatmap of one image, which may be named by its folder.

    Raises BadParameter where it cannot be written, or ends like another format than its own.
    """
    path = cam / f"{_stem(name)}{_ENDINGS[npy]}" if cam.is_dir() else cam
    if path.suffix.lower() not in _ENDINGS:
        raise _refused(f"{path} ends neither in .png, for a picture, nor in .npy, for numbers")
    if npy and path.suffix.lower() != ".npy":
        raise _refused(f"{path} is to end in .npy: --npy asks for numbers")
    _check_folder(path.parent, [source], path.name)
    if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
        raise _refused(f"{path} cannot be written")
    return path


def folder_for(cam: Path, images: Mapping[str, ImageSource], *, npy: bool) -> Path:
    """Returns the folder for the heatmaps of several images, made where it is not there; raises BadParameter."""
    if cam.exists() and not cam.is_dir():
        raise _refused(f"{cam} is a file, and heatmaps of several images go into a folder")
    if not cam.exists() and cam.suffix.lower() in _ENDINGS:
        raise _refused(f"{cam} is named like a file, and heatmaps of several images go into a folder")
    try:
        cam.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(f"{cam}: {error.strerror}") from None
    _check_folder(cam, images.values(), *(f"{_stem(name)}{_ENDINGS[npy]}" for name in images))
    return cam


def folder_file(folder: Path, name: str, suffix: str, taken: set[Path]) -> Path:
    """Returns a file in a folder for an image of that name, another one for each image."""
    stem = _stem(name)
    path, number = folder / f"{stem}{suffix}", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    taken.add(path)
    return path


def _check_folder(folder: Path, sources: Iterable[ImageSource], *names: str) -> None:
    """Raises BadParameter for a folder that takes no file, and for a heatmap in the place of its own image."""
    if not folder.is_dir():
        raise _refused(f"there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(f"{folder} cannot be written to")
    images = {source.resolve() for source in sources if isinstance(source, Path)}
    for name in names:
        if (folder / name).resolve() in images:
            raise _refused(f"{folder / name} is an image that is sent: its heatmap would take its place")


def _stem(name: str) -> str:
    stem = Path(name).stem
    return stem if stem.strip("-") else "image"


def _refused(why: str) -> typer.BadParameter:
    return typer.BadParameter(why, param_hint="--cam")
