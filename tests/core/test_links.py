from __future__ import annotations

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.links import parse_range


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, (0, 100, False)),
        ("bytes=0-9", (0, 10, True)),
        ("bytes=90-", (90, 100, True)),
        ("bytes=-10", (90, 100, True)),
        ("bytes=-1000", (0, 100, True)),
        ("bytes=0-1000", (0, 100, True)),
        ("bytes=0-1,5-6", (0, 100, False)),
        ("lines=0-1", (0, 100, False)),
        ("bytes=9-1", (0, 100, False)),
        ("bytes=-", (0, 100, False)),
        ("bytes=" + "9" * 30 + "-", (0, 100, False)),
    ],
)
def test_ranges_are_read_as_the_rfc_says(header, expected):
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=200-300", "bytes=-0"])
def test_a_range_past_the_end_is_refused(header):
    with pytest.raises(ApiError) as caught:
        parse_range(header, 100)
    assert caught.value.reason is Reason.PARAM_OUT_OF_RANGE
