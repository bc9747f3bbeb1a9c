"""Adding a version: its folder is written aside, checked, and moved to its place when everything is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from camserve_server.engine.device import prepare_thread
from camserve_server.engine.faithfulness import likeness_when_randomised
from camserve_server.engine.folders import earlier_versions
from camserve_server.engine.golden import decode_picture, write_golden
from camserve_server.engine.inference import Explain
from camserve_server.engine.manifest import UnloadableError, read_manifest
from camserve_server.engine.model import ModelVersion, bring_version
from camserve_server.engine.names import check_apart, check_name
from camserve_server.engine.new_version import NewVersion, write_version
from camserve_server.engine.pictures import draw_picture, encode_picture
from camserve_server.engine.staging import publish, staging_folder

_GOLDEN_NAME = "golden.json"
_DRAWN_PICTURES = 12
_KEPT_PICTURES = 4
_MOST_PICTURES = 64
_MOST_SIDE_PX = 1024
# Of 13 untrained torchvision classifiers and the trained `shapes` the highest was 0.42; maps that do not depend on the
# weights have 1. The paper of the measure names no bound.
_MOST_LIKENESS = 0.7
# 1/255, rounded down: what the pixels of networks that want 0 to 255 are divided by.
_LEAST_STD = 0.0039


@dataclass(frozen=True, slots=True)
class Place:
    """Where versions lie and run: the last of the `models_dirs` is the one that is written to."""

    models_dirs: Sequence[Path]
    weights_dir: Path | None
    device: torch.device
    threads: int
    max_batch: int


def add_version(new: NewVersion, pictures: Sequence[Path], place: Place, say: Callable[[str], None]) -> Path:
    """Returns the folder of the new version; whoever serves the models folder loads it from there.

    `pictures` become its golden inputs; where there are none some are drawn. `say` is told each check that passed.
    Raises UnloadableError, or OperatorError when it cannot be moved there, and then nothing is left behind.
    """
    check_name("a model's name", new.name)
    check_name("a version's name", new.version)
    check_apart(place.models_dirs, new.name, new.version, new.aliases)
    if any((models_dir / new.name / new.version).exists() for models_dir in place.models_dirs):
        raise UnloadableError(f"{new.name} {new.version} is there already, and a version never changes")
    if len(pictures) > _MOST_PICTURES:
        raise UnloadableError(f"{len(pictures)} golden pictures are too many: each is run at every start")
    models_dir = place.models_dirs[-1]
    prepare_thread(place.device, place.threads)
    with staging_folder(models_dir) as draft:
        folder = Path(draft, new.name, new.version)
        folder.mkdir(parents=True)
        try:
            write_version(new, folder, golden=_GOLDEN_NAME)
            _check(folder, pictures, place, say)
        except (UnloadableError, OSError):
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            # Builders, forward passes and damaged files raise what they like.
            raise UnloadableError(_line(error)) from None
        return publish(folder, models_dir)


def _check(folder: Path, pictures: Sequence[Path], place: Place, say: Callable[[str], None]) -> None:
    (folder / _GOLDEN_NAME).write_text('{"cases": []}')
    # Golden answers are those of float32.
    model = _loaded(folder, place, precise=True)
    size = f"{model.input.width} x {model.input.height}"
    say(f"loads: input {size}, {len(model.labels)} classes, {model.memory_bytes / 1e6:.1f} MB")
    if model.max_batch is not None:
        say("takes no more than one picture at once, which is slow" if model.max_batch == 1 else "takes small batches")
    _check_normalisation(folder)
    golden = [(path.name, path.read_bytes()) for path in pictures] or _drawn(model)
    decoded = [decode_picture(name, data, model) for name, data in golden]
    _check_probabilities(model, decoded)
    say(f"answers: {len(golden)} pictures, probabilities that add up to 1 and differ")
    if model.default_layer is None:
        say("has no heatmaps: none of its layers can be watched, as in a TorchScript program, or none gives a map")
    else:
        _check_maps(model, decoded)
        say(f"explains: layer {model.default_layer}, chosen among {len(model.layers)}")
    write_golden(folder, _GOLDEN_NAME, golden, model)
    if model.default_layer is not None:
        likeness = likeness_when_randomised(model, decoded)
        if likeness > _MOST_LIKENESS:
            raise UnloadableError(
                "its heatmaps do not depend on what it has learned: "
                f"with random weights they stay {likeness:.2f} alike (rank correlation; at most {_MOST_LIKENESS})"
            )
        say(f"is faithful: with random weights its heatmaps are only {likeness:.2f} alike (at most {_MOST_LIKENESS})")
    again = _loaded(folder, place)
    if again.golden != "passed":
        raise UnloadableError(f"it does not give its own golden answers again: {again.golden_reason}")
    say("repeats: its golden inputs give the same answers when it is loaded again")
    if again.precision_reason:
        say(f"works in float32 here: {again.precision_reason}")


def _loaded(folder: Path, place: Place, *, precise: bool = False) -> ModelVersion:
    return bring_version(
        folder,
        place.device,
        max_batch=place.max_batch,
        weights_dir=place.weights_dir,
        earlier=earlier_versions(place.models_dirs, folder),
        precise=precise,
    )


def _line(error: BaseException) -> str:
    """Returns an error as the first of the lines in which it says what is wrong."""
    said = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _check_normalisation(folder: Path) -> None:
    seen = read_manifest(folder).input
    if seen is None:
        return
    sound = all(0 <= mean <= 1 for mean in seen.mean) and all(_LEAST_STD <= std <= 1 for std in seen.std)
    if not sound:
        raise UnloadableError(
            "mean and std are for pixels from 0 to 1, so mean is 0 to 1 and std 1/255 to 1: "
            "divide those for pixels from 0 to 255 by 255"
        )


def _check_probabilities(model: ModelVersion, decoded: Sequence[np.ndarray]) -> None:
    answers = [model.run([pixels], [None])[0].probs for pixels in decoded]
    if not all(bool(probs.isfinite().all()) for probs in answers):
        raise UnloadableError("its scores are not finite numbers")
    if len(answers) > 1 and all(torch.equal(probs, answers[0]) for probs in answers):
        raise UnloadableError("it gives every picture the same probabilities")


def _check_maps(model: ModelVersion, decoded: Sequence[np.ndarray]) -> None:
    assert model.default_layer is not None
    explain = Explain(model.default_layer, "gradcam", None)
    maps = [model.run([pixels], [explain])[0].cam for pixels in decoded]
    if not all(cam is not None and bool(cam.isfinite().all()) for cam in maps):
        raise UnloadableError("its heatmaps are not finite numbers")
    if not any(cam is not None and float(cam.max()) > float(cam.min()) for cam in maps):
        raise UnloadableError("its heatmaps are empty for every picture: choose another layer")


def _drawn(model: ModelVersion) -> list[tuple[str, bytes]]:
    """Returns those drawn pictures of which the model is surest: their top class does not hang on a rounding."""
    width, height = (
        min(_MOST_SIDE_PX, max(16, round(1.25 * side))) for side in (model.input.width, model.input.height)
    )
    candidates: list[tuple[float, int, bytes]] = []
    for seed in range(_DRAWN_PICTURES):
        data = encode_picture(draw_picture(seed, width, height))
        probs = model.run([decode_picture("drawn", data, model)], [None])[0].probs
        first, second = probs.topk(min(2, len(probs))).values.tolist() if len(probs) > 1 else (1.0, 0.0)
        candidates.append((first - second, seed, data))
    candidates.sort(key=lambda candidate: -candidate[0])
    return [(f"drawn-{seed}.png", data) for _, seed, data in candidates[:_KEPT_PICTURES]]
