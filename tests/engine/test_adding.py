"""A version is added when everything about it is right, and leaves nothing behind otherwise."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.engine.tiny import CLASSES, SIDE, TinyNet, write_model
from torch import Tensor, nn

from camserve_server.base.errors import OperatorError
from camserve_server.engine.adding import Place, add_version
from camserve_server.engine.faithfulness import rank_correlation
from camserve_server.engine.manifest import UnloadableError, read_manifest
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.new_version import NewVersion
from camserve_server.engine.pictures import draw_picture, encode_picture

SEEN = {"width": SIDE, "height": SIDE, "fit": "pad", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place((tmp_path / "bundled", tmp_path / "models"), None, torch.device("cpu"), 1, 2)


@pytest.fixture
def new(tmp_path: Path) -> NewVersion:
    torch.manual_seed(3)
    labels, weights = tmp_path / "labels.json", tmp_path / "weights.pt"
    labels.write_text(json.dumps([{"id": word, "label": word.title()} for word in CLASSES]))
    torch.save(TinyNet().state_dict(), weights)
    return NewVersion("added", "1", weights=weights, builder="tests.engine.tiny:TinyNet", labels=labels, input=SEEN)


def add(new: NewVersion, place: Place, *pictures: Path) -> ModelVersion:
    said: list[str] = []
    folder = add_version(new, pictures, place, said.append)
    assert len(said) >= 4
    assert folder == place.models_dirs[-1] / new.name / new.version
    assert set(place.models_dirs[-1].iterdir()) == {folder.parent}
    return load_version(folder, torch.device("cpu"), max_batch=2, weights_dir=None)


def refused(new: NewVersion, place: Place, *pictures: Path) -> str:
    before = sorted(place.models_dirs[-1].rglob("*"))
    with pytest.raises((UnloadableError, OperatorError)) as caught:
        add_version(new, pictures, place, lambda _: None)
    assert sorted(place.models_dirs[-1].rglob("*")) == before
    return str(caught.value)


def seen(new: NewVersion, **changes: object) -> NewVersion:
    return replace(new, input=SEEN | changes)


def of_module(new: NewVersion, module: type[nn.Module]) -> NewVersion:
    torch.manual_seed(4)
    torch.save(module().state_dict(), new.weights)
    return replace(new, builder=f"{__name__}:{module.__name__}")


def test_a_torch_state_dict_becomes_a_version_with_golden_inputs(new: NewVersion, place: Place) -> None:
    model = add(replace(new, aliases=("stable",)), place)
    assert (model.state, model.golden, model.aliases, model.default_layer) == ("ready", "passed", ("stable",), "body")
    assert [label.label for label in model.labels] == ["Ant", "Bee", "Cat"]
    folder = place.models_dirs[-1] / "added" / "1"
    cases = json.loads((folder / "golden.json").read_text())["cases"]
    assert len(cases) == 4
    assert all((folder / case["image"]).exists() and (folder / case["cam"]).exists() for case in cases)
    manifest = read_manifest(folder)
    assert (manifest.weights.file, manifest.weights.format) == ("weights.safetensors", "safetensors")
    expected = torch.load(new.weights)["head.weight"]
    assert model.module is not None
    assert torch.equal(model.module.head.weight, expected)


@pytest.mark.parametrize("form", ["safetensors", "wrapped", "parallel"])
def test_state_dicts_come_in_several_forms(new: NewVersion, place: Place, tmp_path: Path, form: str) -> None:
    file, state = tmp_path / "other", torch.load(new.weights)
    if form == "safetensors":
        save_file(state, file)
    elif form == "wrapped":
        torch.save({"epoch": 3, "state_dict": state}, file)
    else:
        torch.save({f"module.{name}": value for name, value in state.items()}, file)
    assert add(replace(new, weights=file), place).golden == "passed"


@pytest.mark.parametrize("text", ["ant\tAnt\nbee\tBee\n\ncat\tCat\n", "ant\nbee\ncat", '["ant", "bee", "cat"]'])
def test_labels_come_in_several_forms(new: NewVersion, place: Place, tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    model = add(replace(new, labels=tmp_path / "labels.txt"), place)
    assert [label.id for label in model.labels] == list(CLASSES)


def test_a_program_of_torchscript_is_added_without_heatmaps(new: NewVersion, place: Place, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(TinyNet().eval(), torch.zeros(1, 3, SIDE, SIDE)).save(str(tmp_path / "program"))
    model = add(replace(new, weights=tmp_path / "program", format="torchscript", builder=None), place)
    assert (model.state, model.golden, model.default_layer) == ("ready", "passed", None)


def test_an_exported_program_is_added_with_heatmaps(new: NewVersion, place: Place, tmp_path: Path) -> None:
    program = torch.export.export(TinyNet().eval(), (torch.zeros(1, 3, SIDE, SIDE),))
    torch.export.save(program, tmp_path / "program.pt2")
    model = add(replace(new, weights=tmp_path / "program.pt2", format="exported", builder=None), place)
    assert (model.state, model.golden) == ("ready", "passed")
    assert model.default_layer is not None


def test_a_torchvision_architecture_takes_its_preprocessing_along(new: NewVersion, place: Place) -> None:
    torch.manual_seed(5)
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=3).state_dict(), new.weights)
    arguments = {"num_classes": 3}
    new = replace(new, builder="torchvision:squeezenet1_1", arguments=arguments, input={})
    model = add(new, place)
    assert (model.golden, model.input.width, model.input.resize_px) == ("passed", 224, 256)
    smaller = {"width": 64, "height": 48}
    model = add(
        replace(new, version="2", builder="torchvision:squeezenet1_1", arguments=arguments, input=smaller), place
    )
    assert (model.golden, model.input.height, model.input.resize_px) == ("passed", 48, None)


class Coarse(TinyNet):
    """Takes pixels from 0 to 255."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x / 255)


def test_a_network_may_want_pixels_from_0_to_255(new: NewVersion, place: Place) -> None:
    coarse = of_module(seen(new, mean=[0.485, 0.458, 0.408], std=[0.00392] * 3), Coarse)
    assert add(coarse, place).golden == "passed"


def test_pictures_that_are_given_become_the_golden_inputs(new: NewVersion, place: Place, tmp_path: Path) -> None:
    picture = tmp_path / "A picture.PNG"
    picture.write_bytes(encode_picture(draw_picture(7, 50, 40)))
    assert add(new, place, picture).golden == "passed"
    folder = place.models_dirs[-1] / "added" / "1"
    (case,) = json.loads((folder / "golden.json").read_text())["cases"]
    assert (folder / case["image"]).read_bytes() == picture.read_bytes()
    picture.write_bytes(b"no picture")
    reason = refused(replace(new, version="2"), place, picture)
    assert reason == "the golden picture A picture.PNG cannot be decoded (image.invalid_format)"
    assert "too many" in refused(replace(new, version="2"), place, *[picture] * 65)


def test_a_version_that_is_there_is_never_replaced(new: NewVersion, place: Place) -> None:
    add(new, place)
    assert refused(new, place) == "added 1 is there already, and a version never changes"
    (place.models_dirs[0] / "bundled" / "1").mkdir(parents=True)
    assert "is there already" in refused(replace(new, name="bundled"), place)


def test_a_version_and_an_alias_of_a_model_never_have_one_name(new: NewVersion, place: Place) -> None:
    assert refused(replace(new, aliases=("1",)), place) == "1 is a version of added, and no alias"
    write_model(place.models_dirs[0], "added", "1", top='aliases = ["stable", "3"]')
    later = replace(new, version="2")
    assert refused(replace(later, aliases=("next", "1")), place) == "1 is a version of added, and no alias"
    assert refused(replace(new, version="3"), place) == "3 is an alias of added 1, and no version's name"
    assert refused(replace(new, version="stable"), place).startswith("stable is an alias of every model")


def test_a_known_labels_version_cannot_name_other_labels(new: NewVersion, place: Place, tmp_path: Path) -> None:
    add(replace(new, version="2"), place)
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"id": word, "label": word.title()} for word in reversed(CLASSES)]))
    # Of a lower number too: its labels would count from the next start on.
    assert refused(replace(new, labels=other), place) == (
        "labels_version 1 names other labels in an earlier version: the same classes in another order"
    )
    assert add(replace(new, labels=other, labels_version="2"), place).labels_version == "2"


class Untouched(nn.Module):
    """Shows the picture's edges, whatever it has learned."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]).expand(1, 3, 3, 3).clone())
        self.layer = nn.Identity()
        self.bias = nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))

    def forward(self, x: Tensor) -> Tensor:
        found = self.layer(torch.nn.functional.conv2d(x, self.edges, padding=1).abs())
        return found.mean(dim=(2, 3)) * torch.tensor([9.0, 10.0, 11.0]) + self.bias


class NotFinite(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0


class Blind(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(x))


class Empty(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0 + x.mean(dim=(2, 3))


class Unbuilt(TinyNet):
    def __init__(self) -> None:
        raise LookupError("no such variant\nand more")


class Failing(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        raise IndexError


class Ending(TinyNet):
    def __init__(self) -> None:
        raise SystemExit("no licence")


class Closing(TinyNet):
    def forward(self, x: Tensor) -> Tensor:
        raise GeneratorExit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda new: replace(new, labels_version="", name="-"), "a model's name has 1 to 64 letters"),
        (lambda new: replace(new, version="a/b"), "a version's name has 1 to 64 letters"),
        (lambda new: replace(new, builder=None), "a state dict needs a builder"),
        (lambda new: replace(new, format="torchscript"), "a state dict needs a builder, and a program has none"),
        (lambda new: replace(new, builder="tests.engine.tiny:Nothing"), "the builder cannot be imported"),
        (lambda new: replace(new, arguments={"classes": 4}), "the weights do not fit the architecture"),
        (lambda new: replace(new, builder="torchvision:resnet18"), "the weights do not fit the architecture"),
        (lambda new: replace(new, input={}), "model.toml: input.width is missing"),
        (lambda new: replace(new, input=SEEN | {"fit": "stretch"}), "model.toml: input.fit has no valid value"),
        (lambda new: seen(new, mean=[123, 117, 104], std=[58, 57, 57]), "mean and std are for pixels from 0 to 1"),
        (lambda new: seen(new, mean=[127.5] * 3, std=[127.5] * 3), "mean and std are for pixels from 0 to 1"),
        (lambda new: seen(new, mean=[0.4, 0.4, -0.1]), "mean and std are for pixels from 0 to 1"),
        (lambda new: seen(new, std=[0.2, 0.2, 1.1]), "mean and std are for pixels from 0 to 1"),
        (lambda new: seen(new, std=[0.2, 0.2, 0.003]), "mean and std are for pixels from 0 to 1"),
        (lambda new: replace(new, layer="head"), "model.toml: cam.layer is no layer usable for a heatmap"),
        (lambda new: replace(new, layer="aside"), "the default layer does not lead to the model's scores"),
        (lambda new: replace(new, builder=f"{__name__}:Unbuilt"), "LookupError: no such variant"),
        (lambda new: replace(new, builder=f"{__name__}:Failing"), "IndexError"),
        (lambda new: replace(new, builder=f"{__name__}:Ending"), "SystemExit: no licence"),
        (lambda new: replace(new, builder=f"{__name__}:Closing"), "GeneratorExit"),
        (lambda new: of_module(new, NotFinite), "its scores are not finite numbers"),
        (lambda new: of_module(new, Blind), "it gives every picture the same probabilities"),
        (lambda new: of_module(new, Empty), "its heatmaps are empty for every picture"),
        (lambda new: of_module(new, Untouched), "its heatmaps do not depend on what it has learned"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_left(
    new: NewVersion, place: Place, change: Callable[[NewVersion], NewVersion], reason: str
) -> None:
    place.models_dirs[-1].mkdir()
    said = refused(change(new), place)
    assert said.startswith(reason)
    assert "\n" not in said


def test_labels_and_outputs_must_agree(new: NewVersion, place: Place, tmp_path: Path) -> None:
    place.models_dirs[-1].mkdir()
    (tmp_path / "labels.txt").write_text("ant\nbee")
    wrong = replace(new, labels=tmp_path / "labels.txt")
    assert refused(wrong, place) == "the model has 3 outputs and 2 labels"
    (tmp_path / "labels.txt").write_text("ant\nbee\nbee")
    assert refused(wrong, place) == "the labels file is empty or repeats an id"
    (tmp_path / "labels.txt").write_bytes(b"\xff\xfe")
    assert refused(wrong, place) == "the labels file is not UTF-8"
    (tmp_path / "labels.txt").write_text("{}")
    assert refused(wrong, place) == "the labels file is no list"


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize("held", [Trap(), {"a": Trap()}, {"a": 1}, {}, [torch.zeros(1)]])
def test_a_file_of_anything_but_tensors_is_refused(new: NewVersion, place: Place, held: object) -> None:
    place.models_dirs[-1].mkdir()
    torch.save(held, new.weights)
    assert refused(new, place).startswith("the weights file ")


@pytest.mark.parametrize("form", ["safetensors", "torch", "torchscript", "exported"])
@pytest.mark.parametrize("kept", [0.5, 0.99, 0.0])
def test_a_file_that_is_cut_off_is_refused_in_a_line(
    new: NewVersion, place: Place, tmp_path: Path, capfd: pytest.CaptureFixture[str], form: str, kept: float
) -> None:
    place.models_dirs[-1].mkdir()
    file, example = tmp_path / "whole", torch.zeros(1, 3, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "safetensors":
            save_file(TinyNet().state_dict(), file)
        elif form == "torch":
            torch.save(TinyNet().state_dict(), file)
        elif form == "torchscript":
            torch.jit.trace(TinyNet().eval(), example).save(str(file))
        else:
            file = tmp_path / "whole.pt2"
            torch.export.save(torch.export.export(TinyNet().eval(), (example,)), file)
    file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    capfd.readouterr()
    wrong = replace(new, weights=file)
    if form in ("torchscript", "exported"):
        wrong = replace(wrong, format=form, builder=None)
    assert "\n" not in refused(wrong, place)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_folder_that_cannot_be_moved_leaves_nothing(
    new: NewVersion, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.models_dirs[-1].mkdir()

    def rename(self: Path, target: Path) -> Path:
        raise OSError

    monkeypatch.setattr(Path, "rename", rename)
    assert "cannot be moved" in refused(new, place)


def test_drawn_pictures_are_the_same_every_time_and_differ_from_each_other() -> None:
    assert np.array_equal(draw_picture(1, 40, 30), draw_picture(1, 40, 30))
    assert draw_picture(1, 40, 30).shape == (30, 40, 3)
    assert not np.array_equal(draw_picture(1, 40, 30), draw_picture(2, 40, 30))


def test_rank_correlation_is_spearmans() -> None:
    scipy = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(7, 7, generator=generator), torch.rand(7, 7, generator=generator)
    one[:3] = 0
    expected = scipy.spearmanr(one.flatten(), other.flatten()).statistic
    assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-9)
    assert rank_correlation(one, one.square()) == pytest.approx(1)
    assert rank_correlation(one, torch.ones(7, 7)) == 0


def test_a_version_may_ask_for_bfloat16_and_is_told_where_it_does_not_get_it(
    new: NewVersion, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("camserve_server.engine.model.has_bfloat16", lambda device: False)
    said: list[str] = []
    folder = add_version(replace(new, precision="bfloat16"), (), place, said.append)
    assert read_manifest(folder).precision == "bfloat16"
    assert said[-1] == "works in float32 here: the device has no bfloat16"
    monkeypatch.setattr("camserve_server.engine.model.has_bfloat16", lambda device: True)
    model = load_version(folder, torch.device("cpu"), max_batch=2, weights_dir=None)
    assert (model.golden, model.precision) == ("passed", "bfloat16")


def test_there_are_no_other_precisions(new: NewVersion, place: Place) -> None:
    assert refused(replace(new, precision="float16"), place) == "model.toml: precision has no valid value"
