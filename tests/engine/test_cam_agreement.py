from __future__ import annotations

import math

import numpy as np
import pytest

from camserve_server.engine.cam_agreement import SeenMap, cam_agreement, centre, top_area
from camserve_server.engine.geometry import place
from camserve_server.engine.input_spec import InputSpec

WHOLE = (0.0, 0.0, 1.0, 1.0)


def bump(x, y, cells=14, width=0.1):
    """A map with one hill at (x, y) in fractions of it."""
    middles = (np.arange(cells) + 0.5) / cells
    down, across = np.meshgrid(middles, middles, indexing="ij")
    return np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * width**2)).astype(np.float32)


def compare(one, other, *, view=WHOLE, other_view=WHOLE, size=(100, 100)):
    return cam_agreement(SeenMap(one, view), SeenMap(other, other_view), *size)


def test_a_map_agrees_with_itself_at_any_scale():
    found = compare(bump(0.3, 0.6), 250 * bump(0.3, 0.6))
    assert found.iou == 1.0
    assert found.shift == pytest.approx(0.0, abs=1e-6)


def test_hills_in_opposite_corners_share_nothing_and_are_far_apart():
    found = compare(bump(0.1, 0.1, width=0.05), bump(0.9, 0.9, width=0.05))
    assert found.iou < 0.01
    assert found.shift == pytest.approx(0.8, abs=0.05)


def test_unrelated_maps_agree_as_little_as_chance_has_it():
    generator = np.random.default_rng(0)
    found = [compare(generator.random((32, 32)), generator.random((32, 32))).iou for _ in range(50)]
    # Two random fifths of the cells share 4 % of them, of 36 % that are in either.
    assert np.mean(found) == pytest.approx(0.04 / 0.36, abs=0.01)


def test_the_shift_is_a_fraction_of_the_diagonal_of_the_picture():
    one, other = bump(0.25, 0.5, width=0.03), bump(0.75, 0.5, width=0.03)
    assert compare(one, other, size=(300, 400)).shift == pytest.approx(150 / 500, abs=0.01)
    assert compare(one.T, other.T, size=(300, 400)).shift == pytest.approx(200 / 500, abs=0.01)


def test_maps_of_different_sizes_and_parts_of_a_picture_are_laid_over_each_other():
    width, height = 300, 200
    crop = place(width, height, InputSpec(48, 48)).view
    pad = place(width, height, InputSpec(32, 32, fit="pad")).view
    x, y = 0.55, 0.4

    def seen(view, cells):
        x0, y0, x1, y1 = view
        return bump((x - x0) / (x1 - x0), (y - y0) / (y1 - y0), cells, width=0.1 / (x1 - x0))

    # A hill that is round in the input, and the inputs show the picture's pixels as squares.
    found = compare(seen(crop, 12), seen(pad, 32), view=crop, other_view=pad, size=(width, height))
    assert found.iou > 0.8
    assert found.shift < 0.02
    wrong = compare(seen(crop, 12), seen(crop, 12), view=crop, other_view=pad, size=(width, height))
    assert wrong.iou < found.iou


@pytest.mark.parametrize("flat", [np.zeros((7, 7)), np.full((7, 7), 3.0), np.full((7, 7), np.nan)])
def test_a_map_without_structure_is_no_agreement(flat):
    assert compare(flat, bump(0.5, 0.5)) is None
    found = compare(bump(0.5, 0.5), flat)
    assert (found.iou, found.shift) == (0.0, None)


def test_a_map_whose_structure_lies_outside_of_what_both_show_has_none():
    edge = np.zeros((8, 8), np.float32)
    edge[:, 7] = 1.0
    assert compare(edge, bump(0.5, 0.5), other_view=(0.0, 0.0, 0.5, 1.0)) is None


def test_views_that_have_nothing_in_common_compare_nothing():
    assert compare(bump(0.5, 0.5), bump(0.5, 0.5), view=(0, 0, 0.4, 1), other_view=(0.5, 0, 1, 1)) is None


def test_the_top_area_is_a_fifth_unless_cells_are_alike():
    ramp = np.arange(100.0).reshape(10, 10)
    assert top_area(ramp).sum() == 20
    assert top_area(ramp)[8:].all()
    single = np.zeros((10, 10))
    single[3, 4] = 1.0
    assert top_area(single).sum() == 1
    half = np.zeros((10, 10))
    half[:5] = 1.0
    assert top_area(half).sum() == 50


def test_the_centre_is_of_what_rises_above_the_minimum():
    grid = np.full((4, 4), 5.0)
    grid[1, 3] = 6.0
    assert centre(grid) == pytest.approx((0.875, 0.375))
    assert math.dist(centre(grid), centre(100 * grid)) == pytest.approx(0.0)
