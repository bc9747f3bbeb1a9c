"""What a killed process has left of a new version is removed, and nothing that somebody still writes."""

from __future__ import annotations

import os
from pathlib import Path

from camserve_server.engine.staging import staging_folder

LONG_AGO = (0, 0)


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    left, young, other = tmp_path / ".staging-left", tmp_path / ".staging-young", tmp_path / ".other"
    for folder in (left, young, other):
        (folder / "shapes").mkdir(parents=True)
    with staging_folder(tmp_path) as held:
        for folder in (left, other, Path(held)):
            os.utime(folder, LONG_AGO)
        with staging_folder(tmp_path) as second:
            assert set(tmp_path.iterdir()) == {young, other, Path(held), Path(second)}
    assert set(tmp_path.iterdir()) == {young, other}
