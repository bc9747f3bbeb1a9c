"""Torchvision's classifiers are described, built and filled, or unavailable without a network."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import models

from camserve_server.engine import torchvision_models
from camserve_server.engine.labels import imagenet_labels
from camserve_server.engine.manifest import UnloadableError, read_manifest
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.new_version import NewVersion, write_version
from camserve_server.engine.torchvision_models import find_weights


def write(models_dir: Path, name: str) -> Path:
    folder = models_dir / name / "1"
    folder.mkdir(parents=True)
    write_version(NewVersion(name, "1", aliases=("stable",)), folder, golden="golden.json")
    (folder / "golden.json").write_text('{"cases": []}')
    return folder


def load(folder: Path, weights_dir: Path) -> ModelVersion:
    return load_version(folder, torch.device("cpu"), max_batch=1, weights_dir=weights_dir)


def test_imagenet_classes_are_wordnet_ids_with_torchvisions_labels() -> None:
    labels = imagenet_labels()
    assert len({label.id for label in labels}) == 1000
    assert labels[0] == ("n01440764", "tench")
    assert labels[285] == ("n02124075", "Egyptian cat")
    assert labels[999] == ("n15075141", "toilet tissue")


def test_a_described_classifier_sees_pictures_as_its_weights_were_published(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path, "resnet50"))
    assert manifest.aliases == ("stable",)
    assert manifest.labels == "imagenet"
    assert manifest.weights.torchvision == "IMAGENET1K_V2"
    assert manifest.input is not None
    assert (manifest.input.width, manifest.input.height, manifest.input.resize_px) == (224, 224, 232)
    assert (manifest.input.fit, manifest.input.interpolation) == ("crop", "bilinear")
    assert manifest.input.mean == (0.485, 0.456, 0.406)


def test_a_name_that_torchvision_does_not_have_is_refused(tmp_path: Path) -> None:
    for name in ("resnet51", "fcn_resnet50"):
        with pytest.raises(UnloadableError):
            write(tmp_path, name)


def test_weights_neither_cached_nor_reachable_are_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    # The opener of the whole process keeps the proxies that it was made with.
    monkeypatch.setattr(urllib.request, "_opener", None)
    model = load(write(tmp_path, "squeezenet1_1"), tmp_path / "downloads")
    assert model.state == "unavailable"
    assert model.reason == "weights are not in the cache and cannot be downloaded"
    assert model.aliases == ("stable",)


def test_cached_weights_fill_the_classifier(tmp_path: Path) -> None:
    folder = write(tmp_path, "squeezenet1_1")
    torch.manual_seed(1)
    module = models.squeezenet1_1().eval()
    cached = torchvision_models.cached_file(find_weights("squeezenet1_1", "DEFAULT"), tmp_path)
    torch.save(module.state_dict(), cached)
    model = load(folder, tmp_path)
    assert (model.state, model.reason) == ("ready", None)
    assert model.labels == imagenet_labels()
    assert (model.input.width, model.input.resize_px) == (224, 256)
    pixels = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    inputs = find_weights("squeezenet1_1", "DEFAULT").transforms()(torch.from_numpy(pixels).permute(2, 0, 1))
    with torch.no_grad():
        expected = torch.softmax(module(_uncropped(pixels)), 1)[0]
    assert inputs.shape == (3, 224, 224)
    assert torch.allclose(model.run([pixels], [None])[0].probs, expected, atol=1e-6)


def _uncropped(pixels: np.ndarray) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(2, 0, 1)[None]


def test_a_cached_file_with_more_than_tensors_is_not_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    folder = write(tmp_path, "squeezenet1_1")
    torch.save(Trap(), torchvision_models.cached_file(find_weights("squeezenet1_1", "DEFAULT"), tmp_path))
    model = load(folder, tmp_path)
    assert model.reason == "the weights cannot be loaded (UnpicklingError)"
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_classifiers_with_heads_for_training_take_their_published_weights(name: str, tmp_path: Path) -> None:
    weights = find_weights(name, "DEFAULT")
    arguments = {"num_classes": 1000, "transform_input": True, "aux_logits": True, "init_weights": False}
    published = models.get_model(name, weights=None, **arguments).state_dict()
    file = torchvision_models.cached_file(weights, tmp_path)
    torch.save(published, file)
    module = torchvision_models.build(name, {}, trained=True)
    assert module.transform_input
    module.load_state_dict(torchvision_models.load_weights(weights, tmp_path))


def test_one_of_torchvisions_classifiers_is_loaded_without_what_only_detectors_use(tmp_path: Path) -> None:
    folder = tmp_path / "resnet18" / "1"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(
        'name = "resnet18"\nversion = "1"\nlabels = "imagenet"\n'
        '[architecture]\nbuilder = "torchvision:resnet18"\n[weights]\nrandom = 0\n'
        "[input]\nwidth = 64\nheight = 64\n"
    )
    assert loaded_modules(folder) == ["torchvision"]


def test_what_detectors_use_is_there_for_whoever_uses_it() -> None:
    program = (
        "import sys, torch\n"
        "from camserve_server.engine import torchvision_models\n"
        "with torch.device('meta'):\n"
        "    for name in ('convnext_tiny', 'swin_t', 'vit_b_16', 'efficientnet_b0', 'maxvit_t', 'densenet121'):\n"
        "        torchvision_models.build(name, {}, trained=False)\n"
        "import torchvision.ops.roi_align\n"
        "from torchvision.models import detection\n"
        "from torchvision.ops import RoIAlign, roi_align\n"
        "class Own(RoIAlign): pass\n"
        "boxes = [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]\n"
        "maps = Own(2, 1.0, -1)(torch.ones(1, 3, 16, 16), boxes)\n"
        "assert torch.equal(maps, roi_align(torch.ones(1, 3, 16, 16), boxes, 2))\n"
        "net = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None).eval()\n"
        "print(tuple(maps.shape), *sorted(net([torch.rand(3, 64, 64)])[0]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 3, 2, 2) boxes labels scores"


def test_a_replica_without_torchvision_models_does_not_import_it() -> None:
    assert loaded_modules(Path(__file__).parents[2] / "models" / "shapes" / "2") == []


def loaded_modules(folder: Path) -> list[str]:
    """Returns what a new process has imported that takes much memory once it has loaded the version."""
    program = (
        "import sys, pathlib, torch\n"
        "from camserve_server.engine.engine import Engine\n"
        "from camserve_server.engine.model import load_version\n"
        f"folder = pathlib.Path({str(folder)!r})\n"
        "model = load_version(folder, torch.device('cpu'), max_batch=1, weights_dir=None)\n"
        "assert model.state == 'ready', model.reason\n"
        "print(*sorted({'torchvision', 'torch._dynamo', 'torch.onnx', 'sympy', 'scipy'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()
