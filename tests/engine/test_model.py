"""Versions load from every kind of weights, or are listed unavailable with a reason."""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.engine.reference import reference_maps
from tests.engine.tiny import CLASSES, SIDE, TinyNet, write_model

from camserve_server.engine.inference import Explain
from camserve_server.engine.model import ModelVersion, load_version

SAFETENSORS = 'file = "weights.safetensors"'


def load(folder: Path, max_batch: int = 4) -> ModelVersion:
    weights_dir = folder.parent.parent / "downloads"
    return load_version(folder, torch.device("cpu"), max_batch=max_batch, weights_dir=weights_dir)


def reason(folder: Path) -> str:
    model = load(folder)
    assert model.state == "unavailable"
    assert model.module is None
    assert model.reason is not None
    assert str(folder.parent.parent) not in model.reason
    return model.reason


def test_no_version_is_called_stable(tmp_path: Path) -> None:
    assert reason(write_model(tmp_path, version="stable")) == "stable is an alias of every model, and no version's name"


def logits(model: ModelVersion) -> torch.Tensor:
    outcome = model.run([np.full((SIDE, SIDE, 3), 90, np.uint8)], [None])[0]
    return torch.log(outcome.probs)


def expected_logits(module: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(module.eval()(torch.full((1, 3, SIDE, SIDE), 90 / 255)), 1)[0]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_program(tmp_path: Path, form: str, file_name: str, batch: object = None) -> tuple[Path, TinyNet]:
    torch.manual_seed(3)
    module = TinyNet().eval()
    file = tmp_path / file_name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "torchscript":
            torch.jit.script(module).save(str(file))
        else:
            example = torch.zeros(1 if batch is None else 2, 3, SIDE, SIDE)
            dynamic = None if batch is None else ({0: batch},)
            torch.export.save(torch.export.export(module, (example,), dynamic_shapes=dynamic), file)
    weights = f'file = "{file_name}"\nformat = "{form}"\nsha256 = "{digest(file)}"'
    folder = write_model(tmp_path, architecture=None, weights=weights)
    file.rename(folder / file_name)
    return folder, module


def test_safetensors_fill_the_architecture(tmp_path: Path) -> None:
    torch.manual_seed(3)
    module = TinyNet()
    folder = write_model(tmp_path, weights=SAFETENSORS)
    save_file(module.state_dict(), folder / "weights.safetensors")
    model = load(folder)
    assert model.state == "ready"
    assert torch.allclose(logits(model), expected_logits(module), atol=1e-5)


def test_a_loaded_version_says_what_it_is(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, top='aliases = ["stable", "newest"]\nlabels_version = "9"'))
    assert (model.name, model.version, model.aliases) == ("tiny", "1", ("stable", "newest"))
    assert [(label.id, label.label) for label in model.labels] == [(word, word.title()) for word in CLASSES]
    assert (model.labels_version, model.calibration_version, model.golden) == ("9", "1", "none")
    assert (model.input.width, model.input.height, model.input.fit) == (SIDE, SIDE, "pad")
    assert model.default_layer == "body"
    assert len(model.content_hash) == 64
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_random_weights_depend_on_their_seed_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first = logits(load(write_model(tmp_path, version="1")))
    again = logits(load(write_model(tmp_path, version="2")))
    other = logits(load(write_model(tmp_path, version="3", weights="random = 1")))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())


def test_the_content_hash_covers_manifest_labels_and_weights(tmp_path: Path) -> None:
    folder = write_model(tmp_path, weights=SAFETENSORS)
    hashes = set()
    for seed, label, top in ((0, "Ant", ""), (1, "Ant", ""), (1, "Emmet", ""), (1, "Emmet", "# other")):
        torch.manual_seed(seed)
        save_file(TinyNet().state_dict(), folder / "weights.safetensors")
        labels = [{"id": word, "label": word.title()} for word in CLASSES]
        labels[0]["label"] = label
        (folder / "labels.json").write_text(json.dumps(labels))
        with (folder / "model.toml").open("a") as file:
            file.write(top)
        hashes.add(load(folder).content_hash)
    assert len(hashes) == 4


def test_a_layer_can_be_set_as_the_default(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, cam='layer = "body.0"'))
    assert model.default_layer == "body.0"
    assert model.resolve(Explain("auto", "gradcam", None)).layer == "body.0"


def test_torchscript_classifies_without_heatmaps(tmp_path: Path) -> None:
    folder, module = write_program(tmp_path, "torchscript", "model.pt")
    model = load(folder)
    assert (model.state, model.layers, model.default_layer, model.max_batch) == ("ready", (), None, None)
    assert torch.allclose(logits(model), expected_logits(module), atol=1e-5)


def test_an_exported_program_classifies_with_the_same_heatmaps(tmp_path: Path) -> None:
    folder, module = write_program(tmp_path, "exported", "model.pt2", torch.export.Dim("batch", min=1, max=64))
    model = load(folder)
    assert (model.state, model.default_layer, model.max_batch) == ("ready", "body", None)
    assert torch.allclose(logits(model), expected_logits(module), atol=1e-5)
    pictures = list(np.random.default_rng(5).integers(0, 255, (2, SIDE, SIDE, 3), np.uint8))
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255
    expected = reference_maps(module, "body.0.norm", inputs, [1, 2])["gradcam"]
    wishes = [Explain("body.0.norm", "gradcam", target) for target in (1, 2)]
    for outcome, theirs in zip(model.run(pictures, wishes), expected, strict=True):
        assert np.allclose(outcome.cam, np.maximum(theirs, 0), rtol=0, atol=1e-5)


def test_a_module_that_mixes_the_pictures_of_a_batch_gets_them_one_by_one(tmp_path: Path) -> None:
    model = load(write_model(tmp_path, architecture='builder = "tests.engine.tiny:MixingNet"'))
    assert (model.state, model.max_batch) == ("ready", 1)


def test_an_exported_program_may_be_fixed_to_one_picture(tmp_path: Path) -> None:
    folder, module = write_program(tmp_path, "exported", "model.pt2")
    model = load(folder)
    assert (model.state, model.max_batch) == ("ready", 1)
    assert torch.allclose(logits(model), expected_logits(module), atol=1e-5)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    folder = write_model(tmp_path, weights=SAFETENSORS)
    (folder / "weights.safetensors").write_bytes(pickle.dumps(Trap()))
    assert reason(folder) == "the weights file is not safetensors"
    torch.save(Trap(), folder / "weights.safetensors")
    assert reason(folder) == "the weights file is not safetensors"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"top": "a ="}, "model.toml is not valid TOML"),
        ({"top": "colour = 1"}, "model.toml: colour is not a known key"),
        ({"input": None}, "model.toml: input is missing"),
        ({"input": "width = 32"}, "model.toml: input.height is missing"),
        ({"input": "width = 0\nheight = 32"}, "model.toml: input.width has no valid value"),
        ({"weights": ""}, "model.toml: weights: exactly one of file, torchvision and random"),
        ({"weights": "file = '../other/w'"}, "model.toml: weights.file: not a path inside the version's folder"),
        ({"weights": "file = '/etc/passwd'"}, "model.toml: weights.file: not a path inside the version's folder"),
        ({"weights": "file = 'w'\nformat = 'exported'"}, "model.toml: weights: a program needs its sha256"),
        ({"weights": SAFETENSORS}, "the weights file is missing"),
        ({"weights": "torchvision = 'DEFAULT'"}, "torchvision weights need a torchvision builder"),
        ({"architecture": None}, "model.toml: its tables: an architecture for weights, none for a program"),
        ({"architecture": 'builder = "no.such:Net"'}, "the builder cannot be imported (ModuleNotFoundError)"),
        ({"architecture": 'builder = "json:Net"'}, "the builder cannot be imported (AttributeError)"),
        ({"architecture": 'builder = "json:loads"\narguments = { s = "1" }'}, "the builder does not return a module"),
        ({"architecture": 'builder = "torchvision:resnet51"'}, "torchvision has no classifier of that name"),
        (
            {"architecture": 'builder = "tests.engine.tiny:TinyNet"\narguments = { classes = 4 }'},
            "the model has 4 outputs and 3 labels",
        ),
        (
            {"architecture": 'builder = "tests.engine.tiny:BareNet"'},
            "the model's output is not one row of scores per picture",
        ),
        ({"cam": 'layer = "shared"'}, "model.toml: cam.layer is no layer usable for a heatmap"),
        ({"cam": 'layer = "aside"'}, "the default layer does not lead to the model's scores"),
    ],
)
def test_a_fault_makes_the_version_unavailable(tmp_path: Path, tables: dict[str, str | None], expected: str) -> None:
    assert reason(write_model(tmp_path, **tables)) == expected


def test_an_unforeseen_fault_shows_no_more_than_its_class(tmp_path: Path) -> None:
    builder = 'builder = "tests.engine.tiny:TinyNet"\narguments = { sides = 3 }'
    assert reason(write_model(tmp_path, architecture=builder)) == "loading failed (TypeError)"


class Interrupted(TinyNet):
    def __init__(self) -> None:
        raise KeyboardInterrupt


def test_a_builder_that_would_end_the_program_makes_the_version_unavailable(tmp_path: Path) -> None:
    builder = f'builder = "{__name__}:Interrupted"'
    assert reason(write_model(tmp_path, architecture=builder)) == "loading failed (KeyboardInterrupt)"


def test_wrong_bytes_make_the_version_unavailable(tmp_path: Path) -> None:
    folder = write_model(tmp_path, weights=f"{SAFETENSORS}\nsha256 = '{'0' * 64}'")
    save_file(TinyNet().state_dict(), folder / "weights.safetensors")
    assert reason(folder) == "the weights file does not have the sha256 in model.toml"
    folder = write_model(tmp_path, version="2", weights=SAFETENSORS)
    save_file(TinyNet(classes=4).state_dict(), folder / "weights.safetensors")
    assert reason(folder) == "the weights do not fit the architecture"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "the labels file is no list of {id, label}"),
        ('[{"id": "a"}]', "the labels file is no list of {id, label}"),
        ("[]", "the labels file is empty or repeats an id"),
        ('[{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]', "the labels file is empty or repeats an id"),
    ],
)
def test_faulty_labels_make_the_version_unavailable(tmp_path: Path, text: str, expected: str) -> None:
    folder = write_model(tmp_path)
    (folder / "labels.json").write_text(text)
    assert reason(folder) == expected
    (folder / "labels.json").unlink()
    assert reason(folder) == "the labels file cannot be read"


def test_a_moved_folder_is_noticed(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    moved = folder.rename(folder.parent / "2")
    assert reason(moved) == "name and version in model.toml differ from the folders' names"
