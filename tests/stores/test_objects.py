"""Object ids."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camserve_server.stores.objects import HOUR_S, hour_of_id, new_object_id


@given(st.floats(0, 1e11))
def test_id_has_the_public_form_and_names_its_hour(expires_at: float) -> None:
    object_id = new_object_id(expires_at)
    assert re.fullmatch(r"[a-z]+_[0-9A-Za-z]{16,40}", object_id)
    assert hour_of_id(object_id) == expires_at // HOUR_S


def test_ids_differ() -> None:
    assert len({new_object_id(0) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "obj_", "obj_" + "0" * 26, "obj_" + "0" * 28, "job_" + "0" * 27, "obj_" + "0" * 26 + "/"),
        *("obj_" + "0" * 27 + "\n", "obj_" + "é" + "0" * 26, "../" + "0" * 28, "obj_" + "٣" * 27),
    ],
)
def test_other_text_is_no_id(text: str) -> None:
    assert hour_of_id(text) is None
