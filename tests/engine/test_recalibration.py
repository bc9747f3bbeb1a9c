"""A version with another calibration is a version of its own, and checks itself against its own golden inputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from camserve_server.base import bundle
from camserve_server.base.errors import OperatorError
from camserve_server.engine.golden import GoldenFile
from camserve_server.engine.manifest import Calibration, read_manifest
from camserve_server.engine.model import load_version
from camserve_server.engine.recalibration import golden_at, stage_recalibrated
from camserve_server.engine.staging import publish, staging_folder

SOURCE = bundle.MODELS / "shapes" / "2"


def staged(staging: Path, **changes: object) -> Path:
    wanted = {"calibration": Calibration(temperature=1.5, version="9"), "golden": None, "figures": {"ece": 0.1}}
    return stage_recalibrated(SOURCE, staging, "3", **(wanted | changes))


def test_the_new_version_differs_in_calibration_version_and_aliases_only(tmp_path: Path) -> None:
    old, new = read_manifest(SOURCE), read_manifest(staged(tmp_path))
    changed = {"version": "3", "aliases": (), "calibration": Calibration(temperature=1.5, version="9")}
    assert new == old.model_copy(update=changed)
    assert json.loads((tmp_path / "shapes" / "3" / "calibration.json").read_text()) == {"ece": 0.1}


def test_weights_are_not_stored_twice_where_the_file_system_allows(tmp_path: Path, monkeypatch) -> None:
    first = staged(tmp_path / "source")
    again = stage_recalibrated(first, tmp_path / "a", "4", Calibration(version="10"), golden=None, figures={})
    assert os.path.samefile(first / "weights.safetensors", again / "weights.safetensors")

    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    copied = stage_recalibrated(first, tmp_path / "b", "4", Calibration(version="10"), golden=None, figures={})
    assert (copied / "weights.safetensors").read_bytes() == (first / "weights.safetensors").read_bytes()
    assert not os.path.samefile(first / "weights.safetensors", copied / "weights.safetensors")


def test_golden_inputs_expect_the_new_probabilities_and_the_old_heatmaps(tmp_path: Path) -> None:
    golden = GoldenFile.model_validate_json((SOURCE / "golden.json").read_bytes())
    old = load_version(SOURCE, torch.device("cpu"), max_batch=1, weights_dir=None)
    assert old.golden == "passed"
    ids = [label.id for label in old.labels]
    # Golden inputs state the larger probabilities; the others have what is left of 1.
    rest = [(1 - sum(case.probs.values())) / (len(ids) - len(case.probs)) for case in golden.cases]
    scores = [
        np.log([case.probs.get(class_id, left) for class_id in ids])
        for case, left in zip(golden.cases, rest, strict=True)
    ]
    unchanged = golden_at(golden, scores, ids, 1.0)
    assert [case.cam for case in unchanged.cases] == [case.cam for case in golden.cases]
    for before, after in zip(golden.cases, unchanged.cases, strict=True):
        assert after.probs == pytest.approx(before.probs, abs=2e-6)
    folder = staged(tmp_path, golden=golden)
    new = load_version(folder, torch.device("cpu"), max_batch=1, weights_dir=None)
    assert (new.golden, new.golden_reason) == ("failed", "case 1: a probability is off")
    assert new.content_hash != old.content_hash


def test_golden_inputs_may_be_none() -> None:
    assert golden_at(GoldenFile(cases=()), [], ["a", "b"], 1.5).cases == ()


def test_a_version_comes_to_its_place_at_once_and_never_over_another(tmp_path: Path) -> None:
    models = tmp_path / "models"
    with staging_folder(models) as staging:
        place = publish(staged(Path(staging)), models)
        assert place == models / "shapes" / "3"
        assert (place / "weights.safetensors").exists()
    with staging_folder(models) as staging, pytest.raises(OperatorError, match="shapes/3: is a version there by now"):
        publish(staged(Path(staging)), models)
    assert [each.name for each in models.iterdir()] == ["shapes"]
