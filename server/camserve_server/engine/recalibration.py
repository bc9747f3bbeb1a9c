"""A version with another calibration: a folder of its own, since versions never change."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from camserve_server.engine.calibration import softmax
from camserve_server.engine.golden import GoldenFile
from camserve_server.engine.labels import IMAGENET
from camserve_server.engine.manifest import FILE_NAME, Calibration, Manifest, read_manifest
from camserve_server.engine.toml_writer import to_toml

FIGURES_NAME = "calibration.json"


def stage_recalibrated(
    folder: Path,
    staging: Path,
    version: str,
    calibration: Calibration,
    *,
    golden: GoldenFile | None,
    figures: Mapping[str, Any],
) -> Path:
    """Writes `<staging>/<name>/<version>`, which is `folder`'s version with another calibration, and returns it.

    Weights, labels and golden inputs are hard links where the file system has them, else copies. `golden` expects the
    new probabilities, and `figures` are kept beside it. No alias leads to it: what is served by default is decided
    elsewhere. Raises UnloadableError when the folder cannot be read, OSError when the new one cannot be written.
    """
    manifest = read_manifest(folder)
    staged = staging / manifest.name / version
    staged.mkdir(parents=True)
    changed = manifest.model_copy(update={"version": version, "aliases": (), "calibration": calibration})
    (staged / FILE_NAME).write_text(to_toml(changed.model_dump(exclude_unset=True)), encoding="utf-8")
    for file in _files(manifest, golden):
        _link(folder / file, staged / file)
    if golden is not None and manifest.golden is not None:
        text = golden.model_dump_json(indent=2, exclude_none=True)
        (staged / manifest.golden.file).write_text(text + "\n", encoding="utf-8")
    (staged / FIGURES_NAME).write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return staged


def golden_at(
    golden: GoldenFile, scores: Sequence[NDArray[np.float64]], ids: Sequence[str], temperature: float
) -> GoldenFile:
    """Returns the golden inputs with the probabilities that their `scores`, one row each, have at a temperature.

    `ids` are the model's classes in order. Heatmaps are of scores, so that they stay as they are.
    """
    cases = []
    rows = np.array(scores).reshape(len(golden.cases), len(ids))
    for case, row in zip(golden.cases, softmax(rows, temperature), strict=True):
        by_id = dict(zip(ids, row.tolist(), strict=True))
        probs = {class_id: round(by_id[class_id], 6) for class_id in case.probs}
        cases.append(case.model_copy(update={"probs": probs}))
    return golden.model_copy(update={"cases": tuple(cases)})


def _files(manifest: Manifest, golden: GoldenFile | None) -> Iterable[str]:
    """Returns what the manifest names, but for golden.json itself."""
    named = {manifest.weights.file, None if manifest.labels == IMAGENET else manifest.labels}
    for case in golden.cases if golden else ():
        named |= {case.image, case.cam}
    return sorted(file for file in named if file is not None)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copy2(source, target)
