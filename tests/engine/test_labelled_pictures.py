"""Labelled pictures are found in folders and CSV files, and what is wrong with these is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from camserve_server.base.errors import OperatorError
from camserve_server.engine.labelled_pictures import find_labelled

IDS = ("ant", "bee", "cat")


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(source: Path) -> list[tuple[str, str]]:
    root = source if source.is_dir() else source.parent
    return [(picture.path.relative_to(root).as_posix(), IDS[picture.index]) for picture in find_labelled(source, IDS)]


def test_a_folder_has_a_subfolder_for_each_class(tmp_path: Path) -> None:
    touched(tmp_path / "cat" / "b.png", tmp_path / "ant" / "deep" / "a.jpg", tmp_path / "README.md")
    touched(tmp_path / "ant" / ".DS_Store", tmp_path / ".git" / "x", tmp_path / "ant" / ".cache" / "y.png")
    assert found(tmp_path) == [("ant/deep/a.jpg", "ant"), ("cat/b.png", "cat")]


def test_a_csv_file_names_pictures_from_its_own_folder(tmp_path: Path) -> None:
    touched(tmp_path / "one.png", tmp_path / "far" / "two, too.png")
    table = tmp_path / "pictures.csv"
    table.write_text('\ufeffclass,image,note\ncat,one.png,x\nant,"far/two, too.png",y\n', encoding="utf-8")
    assert found(table) == [("far/two, too.png", "ant"), ("one.png", "cat")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("image,label\none.png,ant\n", "no CSV file with the columns image and class"),
        ("", "no CSV file with the columns image and class"),
        ("image,class\n", "names no picture"),
        ("image,class\none.png,dog\none.png,Ant\n", "classes that the model does not have: Ant, dog; .* ant, bee, cat"),
        ("image,class\none.png\n", r"classes that the model does not have: \(empty\)"),
        ("image,class\none.png,ant\nnone.png,bee\n", "pictures that are not there: .*none.png"),
        ("image,class\n,bee\n", "pictures that are not there"),
        ("image,class\none.png,ant\none.png,bee\n", "names a picture twice"),
        (b"image,class\n\xff\xfe,ant\n", "no CSV file in UTF-8"),
    ],
)
def test_a_csv_file_that_is_wrong_is_refused(tmp_path: Path, text: str | bytes, why: str) -> None:
    touched(tmp_path / "one.png")
    table = tmp_path / "pictures.csv"
    table.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(OperatorError, match=why):
        find_labelled(table, IDS)


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="neither a folder nor a CSV file"):
        find_labelled(tmp_path / "none", IDS)
    touched(tmp_path / "one.png")
    with pytest.raises(
        OperatorError, match="has no subfolders: one named by each class id is needed, such as ant, bee"
    ):
        find_labelled(tmp_path, IDS)
    (tmp_path / "ant").mkdir()
    with pytest.raises(OperatorError, match="names no picture"):
        find_labelled(tmp_path, IDS)
    for number in range(7):
        (tmp_path / f"dog{number}").mkdir()
    with pytest.raises(OperatorError, match="does not have: dog0, dog1, dog2, dog3, dog4 and 2 more;"):
        find_labelled(tmp_path, IDS)
