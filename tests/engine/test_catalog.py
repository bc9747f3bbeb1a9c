"""Versions are found, listed and resolved, those that cannot serve as well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.catalog import Catalog
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.folders import find_folders
from camserve_server.engine.model import ModelVersion


def catalog(*models: ModelVersion) -> Catalog:
    made = Catalog()
    for model in models:
        made.set(model)
    return made


def ready(version: str, *aliases: str, name: str = "m") -> ModelVersion:
    return ModelVersion(name, version, "ready", aliases)


def refusal(made: Catalog, name: str, version: str) -> ApiError:
    with pytest.raises(ApiError) as refused:
        made.resolve(name, version)
    return refused.value


def test_versions_are_found_in_order_and_the_first_folder_counts(tmp_path: Path) -> None:
    for version in ("10", "9", "1.10", "1.9"):
        write_model(tmp_path / "a", version=version)
    write_model(tmp_path / "b", version="9")
    write_model(tmp_path / "b", name="other")
    write_model(tmp_path / "b", name=".hidden")
    (tmp_path / "a" / "empty" / "1").mkdir(parents=True)
    found = find_folders([tmp_path / "a", tmp_path / "b", tmp_path / "missing"])
    assert [(folder.parent.name, folder.name) for folder in found] == [
        ("other", "1"),
        ("tiny", "1.9"),
        ("tiny", "1.10"),
        ("tiny", "9"),
        ("tiny", "10"),
    ]
    assert found[3].is_relative_to(tmp_path / "a")


def test_a_version_is_resolved_by_name_or_alias() -> None:
    made = catalog(ready("1", "old"), ready("2", "stable"))
    assert made.resolve("m", "1").version == "1"
    assert made.resolve("m", "old").version == "1"
    assert made.resolve("m", "stable").version == "2"


def test_a_versions_own_name_goes_before_an_alias() -> None:
    assert catalog(ready("1", "2"), ready("2")).resolve("m", "2").version == "2"


def test_a_versions_name_is_nobodys_alias_and_the_default_alias_no_versions_name() -> None:
    made = catalog(ready("1", "2", "stable"), ready("2"), ready("stable"))
    assert [model.aliases for model in made.models()] == [("stable",), (), ()]
    assert made.resolve("m", "stable").version == "1"
    assert (made.named("m", "2").version, made.named("m", "stable")) == ("2", None)


def test_the_later_of_two_versions_has_a_disputed_alias() -> None:
    for made in (
        catalog(ready("9", "stable", "x"), ready("10", "stable")),
        catalog(ready("10", "stable"), ready("9", "stable", "x")),
    ):
        assert [model.aliases for model in made.models()] == [("x",), ("stable",)]
        assert made.resolve("m", "stable").version == "10"


def test_a_version_that_can_serve_goes_before_one_that_cannot_and_has_the_alias_until_the_other_can() -> None:
    made = catalog(ready("1", "stable"), replace(ready("2", "stable"), state="loading"))
    assert made.resolve("m", "stable").version == "1"
    made.set(ready("2", "stable"))
    assert made.resolve("m", "stable").version == "2"
    made.remove(("m", "2"))
    assert made.resolve("m", "stable").version == "1"


def test_a_version_whose_golden_inputs_failed_has_an_alias_only_where_no_sound_one_claims_it() -> None:
    failed = replace(ready("2", "stable"), golden="failed")
    made = catalog(ready("1", "stable"), failed)
    assert made.resolve("m", "stable").version == "1"
    made.set(replace(ready("1", "stable"), state="unavailable"))
    assert made.resolve("m", "stable").version == "2"
    assert catalog(failed).resolve("m", "stable").version == "2"


def test_an_alias_belongs_to_one_model_only() -> None:
    made = catalog(ready("1", "stable"), ready("1", "stable", name="n"))
    assert made.resolve("m", "stable").name == "m"
    assert made.resolve("n", "stable").name == "n"


def test_what_is_not_there_is_told_apart() -> None:
    broken = replace(ready("2", "stable"), state="unavailable", reason="the weights file is missing")
    made = catalog(ready("1"), broken)
    assert refusal(made, "x", "1").reason is Reason.MODEL_NOT_FOUND
    assert refusal(made, "m", "3").reason is Reason.MODEL_VERSION_NOT_FOUND
    unavailable = refusal(made, "m", "stable")
    assert unavailable.reason is Reason.MODEL_UNAVAILABLE
    assert unavailable.details == {"why": "the weights file is missing"}
    unread = catalog(replace(ready("1"), aliases=(), state="unavailable", reason="the manifest is no TOML"))
    assert refusal(unread, "m", "stable").reason is Reason.MODEL_UNAVAILABLE
    assert refusal(unread, "m", "3").reason is Reason.MODEL_VERSION_NOT_FOUND


async def test_a_faulty_version_is_listed_and_the_others_serve(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path, version="2", top='aliases = ["next"]\ncolour = 1')
    write_model(tmp_path, version="3", top="=")
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1))
    await engine.start()
    try:
        assert [(model.version, model.state, model.aliases) for model in engine.models()] == [
            ("1", "ready", ("stable",)),
            ("2", "unavailable", ("next",)),
            ("3", "unavailable", ()),
        ]
        assert engine.resolve("tiny", "stable").version == "1"
        with pytest.raises(ApiError) as refused:
            engine.resolve("tiny", "next")
        assert refused.value.reason is Reason.MODEL_UNAVAILABLE
    finally:
        await engine.close()
