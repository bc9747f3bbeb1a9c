from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from tests.core.predictions import prediction

from camserve_server.core.pass_times import counter, quantile_ms, ratios, strata, together

CAM = np.ones((2, 2), np.float32)


def passes(*times_ms, **kind):
    return strata(Counter(counter(prediction(ms=ms, **kind)) for ms in times_ms))


def test_a_quantile_is_known_to_a_factor_of_1_09():
    generator = np.random.default_rng(0)
    times = generator.lognormal(3, 1, 2000)
    histogram = together(passes(*times))
    for share in (0.05, 0.5, 0.95, 1.0):
        exact = np.quantile(times, share, method="inverted_cdf")
        assert exact <= quantile_ms(histogram, share) <= 1.091 * exact


@pytest.mark.parametrize("ms", [0.0, 1e-9, 1e9])
def test_times_beyond_all_buckets_are_counted_in_the_last(ms):
    assert sum(together(passes(ms)).values()) == 1


def test_of_no_passes_there_is_no_quantile():
    assert quantile_ms({}, 0.5) is None


def test_passes_are_counted_by_what_makes_them_take_longer():
    kinds = [{}, {"cam": CAM}, {"batch": 2}, {"batch": 3}, {"batch": 4}]
    found = [next(iter(passes(10.0, **kind))) for kind in kinds]
    assert found == ["plain1", "map1", "plain2", "plain2", "plain3"]


def test_a_pass_is_compared_with_those_of_its_kind():
    own = passes(40.0, batch=8) | passes(10.0)
    others = passes(*[40.0] * 10, batch=8) | passes(*[5.0] * 10)
    found = dict(ratios(own, others, share=0.95, least=10))
    assert sorted(found) == pytest.approx([1 / 1.09, 2 / 1.09], rel=0.1)
    # There are too few of one kind to say what is usual.
    fewer = passes(*[40.0] * 10, batch=8) | passes(*[5.0] * 9)
    assert len(list(ratios(own, fewer, share=0.95, least=10))) == 1


def test_a_pass_in_the_bucket_of_the_usual_ones_is_not_slower():
    found = list(ratios(passes(10.0), passes(*[10.0] * 10), share=0.95, least=10))
    assert all(ratio < 1 for ratio, _ in found)
