"""Drawings as a worker that hostile bytes own might hand them over."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import open_anonymous
from camserve_server.engine.imaging_answers import rendered_heatmap
from camserve_server.engine.imaging_process import Answer
from camserve_server.engine.imaging_requests import RenderRequest

REQUEST = RenderRequest(np.zeros((2, 2), np.float32), (0.0, 0.0, 1.0, 1.0), 20, 10)
DRAWN = bytes(range(256)) * 40


def answer(**wrong: Any) -> Answer:
    fd = open_anonymous("heatmap")
    os.write(fd, DRAWN)
    message = {"size": len(DRAWN), "raw_min": 0.0, "raw_max": 1.0, "degenerate": False, "ms": 1.0}
    return Answer(message | wrong, [fd])


def test_a_drawing_is_read_where_it_is_and_cannot_change_any_more() -> None:
    given = answer()
    kept = os.dup(given.fds[0])
    drawn = rendered_heatmap(given, REQUEST)
    assert given.fds == []
    assert drawn.data == DRAWN
    for change in changes():
        with pytest.raises(OSError, match=r"not permitted"):
            change(kept)
    os.close(kept)
    assert drawn.data == DRAWN


def changes() -> list[Callable[[int], object]]:
    return [
        lambda fd: os.pwrite(fd, b"x", 0),
        lambda fd: os.ftruncate(fd, 0),
        lambda fd: os.ftruncate(fd, 1 << 20),
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": len(DRAWN) + 1}, {"size": len(DRAWN) - 1}, {"size": 0}, {"size": -1}, {"size": 1 << 40}, {"size": "1"},
        {"raw_min": float("nan")}, {"ms": None}, {"error": "image.rejected"},
    ],
)  # fmt: skip
def test_what_is_no_drawing_is_an_internal_error_and_its_descriptors_are_closed(wrong: dict[str, Any]) -> None:
    given = answer(**wrong)
    [fd] = given.fds
    if "error" in wrong:
        del given.message["size"]
    with pytest.raises(ApiError) as caught:
        rendered_heatmap(given, REQUEST)
    assert caught.value.reason is Reason.INTERNAL
    with pytest.raises(OSError, match=r"."):
        os.fstat(fd)


def test_a_drawing_that_its_maker_can_still_write_to_is_not_read() -> None:
    given = answer()
    with mmap.mmap(given.fds[0], len(DRAWN)), pytest.raises(ApiError) as caught:
        rendered_heatmap(given, REQUEST)
    assert caught.value.reason is Reason.INTERNAL


def test_an_answer_without_a_descriptor_is_an_internal_error() -> None:
    given = answer()
    os.close(given.fds.pop())
    with pytest.raises(ApiError) as caught:
        rendered_heatmap(given, REQUEST)
    assert caught.value.reason is Reason.INTERNAL
