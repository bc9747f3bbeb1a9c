"""Options of `camserve models add` become a version, or a sentence that says what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.engine.tiny import write_model

from camserve.v1 import model_routes_pb2 as pb
from camserve_server.base.config import Settings, load
from camserve_server.cli import model_routes
from camserve_server.cli.new_models import add, new_version
from camserve_server.engine.new_version import NewVersion

NOTHING: dict[str, Any] = dict.fromkeys(
    ("builder", "arguments", "labels", "size", "fit", "resize", "interpolation", "mean", "std", "pad_color", "aliases")
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load(data_dir=tmp_path / "data")


def parsed(settings: Settings, name: str = "mine", **options: Any) -> NewVersion:
    files = {"state": None, "torchscript": None, "exported": None} | options.pop("files", {})
    return new_version(
        settings,
        name,
        "1",
        files=files,
        **NOTHING | {"labels_version": "1", "layer": "auto", "precision": "float32"} | options,
    )


def test_options_become_a_version(settings: Settings) -> None:
    new = parsed(
        settings,
        files={"exported": Path("a.pt2")},
        labels="labels.txt",
        size="320x240",
        fit="pad",
        mean="0, 0.5,1",
        pad_color="1,2,3",
    )
    assert (new.format, new.weights, new.labels) == ("exported", Path("a.pt2"), Path("labels.txt"))
    assert new.input == {
        "width": 320,
        "height": 240,
        "fit": "pad",
        "mean": [0.0, 0.5, 1.0],
        "pad_color": [1, 2, 3],
    }
    assert parsed(settings, size="224").input == {"width": 224, "height": 224}
    assert parsed(settings, labels="imagenet").labels is None
    assert parsed(settings, arguments='{"num_classes": 3}').arguments == {"num_classes": 3}


def test_the_first_version_of_a_model_has_the_default_alias(settings: Settings) -> None:
    assert parsed(settings).aliases == ("stable",)
    write_model(settings.data_dir / "models", "mine", "0")
    assert parsed(settings).aliases == ()
    # Bundled ones count too.
    assert parsed(settings, "shapes").aliases == ()
    assert parsed(settings, aliases=["next"]).aliases == ("next",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"files": {"state": Path("a"), "exported": Path("b")}, "labels": "l"}, "one of --weights, --torchscript and"),
        ({"files": {"state": Path("a")}}, "a file needs --labels"),
        ({"size": "1x2x3"}, "--size is like 224 or 320x240"),
        ({"size": "-1"}, "--size is like 224 or 320x240"),
        ({"mean": "1,2"}, "--mean is three numbers"),
        ({"std": "a,b,c"}, "--std is three numbers"),
        ({"pad_color": "0.5,1,2"}, "--pad-color is three numbers"),
        ({"arguments": "[]"}, "--arguments is no JSON object"),
        ({"arguments": "{"}, "--arguments is no JSON object"),
    ],
)
def test_options_that_make_no_sense_are_refused(settings: Settings, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parsed(settings, **options)


def test_a_version_with_the_name_of_a_routes_alias_is_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = pb.GetModelRoutesResponse(routes=pb.ModelRoutes(aliases={"stable": "2", "1": "2"}))
    monkeypatch.setattr(model_routes, "ask", lambda *_: answer)
    with pytest.raises(ValueError, match="1 is an alias of mine that leads to 2, and no version's name"):
        add(settings, parsed(settings), None, lambda _: None)


def test_what_leads_to_a_version_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    routes = pb.ModelRoutes(
        aliases={"stable": "2", "next": "1"},
        previous={"stable": "1"},
        pins={"acme": "1", "widgets": "2"},
        canary=pb.ModelCanary(version="1"),
        shadow=pb.ModelShadow(version="1"),
    )
    monkeypatch.setattr(model_routes, "ask", lambda *_: pb.GetModelRoutesResponse(routes=routes))
    told = ["next", "the pin of acme", "the canary", "the shadow", "a rollback of stable"]
    assert model_routes.ways_to(settings, "mine", "1") == told
    assert model_routes.ways_to(settings, "mine", "2") == ["stable", "the pin of widgets"]
    assert model_routes.ways_to(settings, "mine", "3") == []


def test_a_folder_without_pictures_is_refused(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        add(settings, parsed(settings), tmp_path, lambda _: None)
