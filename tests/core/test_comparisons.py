from __future__ import annotations

import numpy as np
import pytest
from tests.core.predictions import CLASSES, WHOLE, prediction, version

from camserve_server.core.comparisons import Agreement, Compared, counted
from camserve_server.stores.model_figures import add

LEFT = np.eye(4, dtype=np.float32)
RIGHT = LEFT[:, ::-1].copy()
FLAT = np.ones((4, 4), np.float32)


def agreement(*pairs, classes=CLASSES):
    """Returns what comes of pairs of an answer and what a shadow made of the same picture."""
    total = {}
    for answer, shown in pairs:
        compared = Compared(version("2"), answer, WHOLE, version("3", classes), shown, WHOLE, 100, 100)
        add(total, {"pair": counted(compared)})
    return Agreement.of(total.get("pair", {}))


def test_of_no_pictures_nothing_is_said():
    found = agreement()
    assert (found.pictures, found.class_shift, found.iou.value, found.shift.value) == (0, 0.0, None, None)


def test_classes_that_change_places_shift_nothing_and_agree_nowhere():
    found = agreement((prediction(0), prediction(1)), (prediction(1), prediction(0)))
    assert (found.pictures, found.agreeing, found.class_shift) == (2, 0, 0.0)


def test_the_class_shift_is_the_share_that_changed_sides():
    found = agreement(*[(prediction(0), prediction(0))] * 6, *[(prediction(0), prediction(2))] * 4)
    assert (found.agreeing, found.class_shift) == (6, pytest.approx(0.4))


def test_classes_are_compared_by_their_ids_and_not_by_their_places():
    found = agreement((prediction(0), prediction(2)), classes=("cat", "bee", "ant"))
    assert found.agreeing == 1


def test_heatmaps_of_one_class_are_compared():
    same, other = prediction(0, cam=LEFT), prediction(0, cam=RIGHT)
    found = agreement((same, same), (same, other))
    assert (found.iou.count, found.iou.value < 0.75, found.blank) == (2, True, 0)
    assert found.iou.value == pytest.approx((1 + agreement((same, other)).iou.value) / 2)
    assert found.iou.error > 0


@pytest.mark.parametrize(
    "pair",
    [
        (prediction(0), prediction(0)),
        (prediction(0, cam=LEFT), prediction(0)),
        (prediction(0, cam=LEFT), prediction(1, cam=LEFT)),
        (prediction(0, cam=FLAT), prediction(0, cam=LEFT)),
    ],
    ids=["no maps", "one map", "of other classes", "nothing to agree with"],
)
def test_other_heatmaps_are_not(pair):
    assert agreement(pair).iou.count == 0


def test_a_heatmap_without_structure_is_counted_and_agrees_with_nothing():
    left = prediction(0, cam=LEFT)
    found = agreement((left, left), (left, prediction(0, cam=FLAT)))
    assert (found.iou.count, found.iou.value, found.blank) == (2, 0.5, 1)
    assert (found.shift.count, found.shift.value) == (1, pytest.approx(0.0, abs=1e-6))
