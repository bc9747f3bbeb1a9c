from __future__ import annotations

import pytest

from camserve_server.core.labels import Place, map_labels
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
