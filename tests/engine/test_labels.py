"""A labels_version means one list of labels for good."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.engine.tiny import CLASSES, write_model

from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.folders import earlier_versions
from camserve_server.engine.labels import Label, check_published, published_labels
from camserve_server.engine.manifest import UnloadableError

NAMED = 'labels_version = "{}"'


def write_labels(folder: Path, *words: str) -> Path:
    (folder / "labels.json").write_text(json.dumps([{"id": word, "label": word.title()} for word in words]))
    return folder


def listed(*words: str) -> tuple[Label, ...]:
    return tuple(Label(word, word.title()) for word in words)


def test_each_labels_version_is_the_list_of_its_earliest_version(tmp_path: Path) -> None:
    folders = [
        write_labels(write_model(tmp_path, version="1", top=NAMED.format("a")), "x", "y"),
        write_labels(write_model(tmp_path, version="2", top=NAMED.format("b")), "y", "x"),
        write_labels(write_model(tmp_path, version="3", top=NAMED.format("a")), "z"),
    ]
    assert published_labels(folders) == {"a": listed("x", "y"), "b": listed("y", "x")}


def test_folders_that_cannot_be_read_name_no_labels(tmp_path: Path) -> None:
    (write_model(tmp_path, version="1") / "model.toml").write_text("=")
    (write_model(tmp_path, version="2") / "labels.json").unlink()
    assert published_labels([tmp_path / "tiny" / "1", tmp_path / "tiny" / "2"]) == {}


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (listed("b", "a"), "the same classes in another order"),
        (listed("a", "b", "c"), "other classes"),
        ((Label("a", "A"), Label("b", "bee")), "classes have other labels"),
    ],
)
def test_another_list_under_a_known_labels_version_is_refused(
    tmp_path: Path, labels: tuple[Label, ...], why: str
) -> None:
    earlier = [write_labels(write_model(tmp_path, top=NAMED.format("a")), "a", "b")]
    check_published("a", listed("a", "b"), earlier)
    check_published("b", labels, earlier)
    with pytest.raises(UnloadableError, match=f"labels_version a names other labels in an earlier version: {why}"):
        check_published("a", labels, earlier)


def test_earlier_versions_are_those_of_the_same_model_in_every_models_folder(tmp_path: Path) -> None:
    first, second = tmp_path / "bundled", tmp_path / "own"
    folders = [
        write_model(first, version="2"),
        write_model(second, version="9"),
        write_model(second, version="10"),
        write_model(second, name="other", version="1"),
    ]
    assert earlier_versions((first, second), folders[2]) == folders[:2]
    assert earlier_versions((first, second), folders[0]) == []


async def test_the_later_of_two_versions_that_disagree_is_unavailable(tmp_path: Path) -> None:
    write_model(tmp_path, version="9", top="")
    write_labels(write_model(tmp_path, version="10", top=""), *reversed(CLASSES))
    write_labels(write_model(tmp_path, version="11", top=NAMED.format("2")), *reversed(CLASSES))
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1))
    await engine.start()
    try:
        assert [(model.version, model.state, model.reason) for model in engine.models()] == [
            ("9", "ready", None),
            (
                "10",
                "unavailable",
                "labels_version 1 names other labels in an earlier version: the same classes in another order",
            ),
            ("11", "ready", None),
        ]
    finally:
        await engine.close()
