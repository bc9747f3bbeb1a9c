from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.engine.tiny import write_model

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.labels import LabelLists, Place, map_labels
from camserve_server.engine.engine import Engine, EngineSettings
from camserve_server.engine.labels import Label


def labels(*words: str) -> list[Label]:
    return [Label(word, word.title()) for word in words]


def changes(before: list[Label], after: list[Label]) -> list[tuple[str, tuple[str, ...]]]:
    return [(mapped.id, mapped.changes) for mapped in map_labels(before, after)]


def test_a_list_maps_to_itself_without_changes():
    assert changes(labels("a", "b"), labels("a", "b")) == [("a", ("kept",)), ("b", ("kept",))]


def test_classes_are_matched_by_id_whatever_their_label():
    before, after = [Label("a", "Ant"), Label("b", "Bee")], [Label("b", "Ant"), Label("a", "Bee")]
    assert changes(before, after) == [("b", ("moved", "renamed")), ("a", ("moved", "renamed"))]


def test_every_class_of_either_list_is_told_of_once_the_removed_ones_last():
    before, after = labels("z", "a", "y", "b"), labels("a", "n", "b")
    mapped = map_labels(before, after)
    assert [each.id for each in mapped] == ["a", "n", "b", "z", "y"]
    assert [each.changes for each in mapped] == [("moved",), ("added",), ("moved",), ("removed",), ("removed",)]
    assert (mapped[1].before, mapped[1].after) == (None, Place(1, "N"))
    assert (mapped[3].before, mapped[3].after) == (Place(0, "Z"), None)


@pytest.mark.parametrize(("label", "told"), [("Ant", ("kept",)), ("ant", ("renamed",))])
def test_a_label_that_differs_in_one_letter_is_renamed(label, told):
    assert changes([Label("a", "Ant")], [Label("a", label)]) == [("a", told)]


def write_version(models_dir: Path, version: str, labels_version: str, *words: str) -> Path:
    folder = write_model(models_dir, version=version, top=f'labels_version = "{labels_version}"')
    (folder / "labels.json").write_text(json.dumps([{"id": word, "label": word} for word in words]))
    return folder


async def test_lists_are_known_by_their_versions_in_memory_and_by_their_folders(tmp_path: Path):
    loaded = write_version(tmp_path, "1", "a", "x", "y", "z")
    engine = Engine(EngineSettings((tmp_path,), device="cpu", torch_threads=1))
    await engine.start()
    try:
        lists = LabelLists(engine, (tmp_path,))
        shutil.rmtree(loaded)
        write_version(tmp_path, "2", "b", "z", "y", "x")
        mapped = await lists.mapping("tiny", "a", "b")
        assert [(each.id, each.changes) for each in mapped] == [("z", ("moved",)), ("y", ("kept",)), ("x", ("moved",))]
        assert await lists.mapping("tiny", "a", "a")
        with pytest.raises(ApiError) as refused:
            await lists.mapping("tiny", "a", "c")
        assert (refused.value.reason, refused.value.details) == (Reason.MODEL_VERSION_NOT_FOUND, {"field": "to"})
        with pytest.raises(ApiError) as refused:
            await lists.mapping("other", "a", "a")
        assert refused.value.reason is Reason.MODEL_NOT_FOUND
    finally:
        await engine.close()
