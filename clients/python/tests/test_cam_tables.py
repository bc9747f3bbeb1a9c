"""The tables of the command line, in terminals and where there is none."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from clients.python.tests.command import lines_in_terminal, ready
from clients.python.tests.pictures import STAR, star_png
from rich.cells import cell_len
from rich.console import Console

from camserve_client.cli import webhooks
from camserve_client.cli.shown import printable, quoted
from camserve_client.cli.tables import Column, Fitted, shortened, told_apart

pytestmark = pytest.mark.timeout(180)
LONG = "holiday_photograph_2026_11_28_at_the_sea_with_family_0001.png"


@pytest.fixture
def cam(stack, tmp_path, tenant):
    return ready(stack, tmp_path, tenant)


@pytest.fixture
def long(cam):
    """A folder with an image of a long name, and one that is broken."""
    (cam.folder / "pictures").mkdir()
    shutil.copy(STAR, cam.folder / "pictures" / LONG)
    (cam.folder / "pictures" / "broken.png").write_bytes(star_png()[:200])
    return cam


def printed(table, width):
    console = Console(width=width, color_system=None)
    with console.capture() as taken:
        console.print(table)
    return taken.get().splitlines()


@pytest.mark.parametrize("columns", [60, 80])
def test_a_long_name_hides_no_result_in_a_terminal(long, columns):
    lines = lines_in_terminal(long, "infer", "pictures", code=1, columns=columns)
    (row,) = {line.strip() for line in lines if re.search(r"…\S*01\.png", line)}
    assert re.fullmatch(r"\S+…\S*01\.png +(succeeded +)?star +99\.9\d%", row)
    assert any("image.decoding_failed" in line for line in lines)
    assert any(re.search(r"image +(status +)?label +probability +error", line) for line in lines)
    assert max(map(cell_len, lines)) <= columns


def test_nothing_is_cut_where_there_is_no_terminal(long):
    said = long("infer", "pictures", code=1, COLUMNS="40").stdout
    assert re.search(rf"pictures/{LONG} +succeeded +star +99\.9\d%", said)
    job = long("jobs", "submit", "pictures").stdout.strip()
    long("jobs", "wait", job, code=1)
    assert re.search(rf"pictures/{LONG} +succeeded +star +99\.9\d%", long("jobs", "results", job).stdout)
    assert re.search(
        rf"img_\w+ +pictures/{LONG} +\d+ +image/png +\d{{4}}-\d\d-\d\d ", long("upload", f"pictures/{LONG}").stdout
    )


def test_an_upload_is_a_row_in_a_narrow_terminal(long):
    lines = lines_in_terminal(long, "upload", f"pictures/{LONG}", columns=60)
    assert any(re.search(r"img_\w{20,} +\S+…\S+\.png ", line) for line in lines)
    assert any("bytes, type: not shown for want of width" in line for line in lines)


def test_one_image_is_told_of_as_one_of_many_is(cam):
    assert "99.93%" in cam("infer", "star.png").stdout
    said = cam("infer", ".").stdout
    assert "99.93%" in said
    assert "1 image, 0 failed" in said


def test_times_name_their_zone_and_facts_have_no_header(cam):
    job = cam("jobs", "submit", "star.png").stdout.strip()
    said = cam("jobs", "wait", job, TZ="Asia/Tokyo").stdout
    assert re.search(r"submitted +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d JST", said)
    assert next(line.split()[0] for line in said.splitlines() if line.strip()) == "job"
    assert re.search(r"\d\d-\d\d \d\d:\d\d JST", cam("jobs", "ls", TZ="Asia/Tokyo").stdout)
    assert "again at 09:00 JST" in cam("limits", TZ="Asia/Tokyo").stdout


@pytest.mark.parametrize("width", [60, 80, 120])
def test_deliveries_leave_out_what_matters_least(width):
    ids = [f"{kind}_01KB5Z5Q7X5Q7X5Q7X5Q7X5Q7X" for kind in ("evt", "job")]
    delivery = SimpleNamespace(
        event_id=ids[0],
        event="webhook.test",
        job_id=ids[1],
        status="delivered",
        attempts=3,
        last_status=500,
        next_attempt_at=datetime(2026, 11, 28, tzinfo=UTC),
    )
    lines = printed(webhooks._deliveries([delivery]), width)
    assert any(re.search(rf"{ids[0]} +webhook\.test +.*delivered", line) for line in lines)
    assert ("last" in " ".join(lines[:4])) == (width >= 80)
    assert any(ids[1] in line for line in lines) == (width >= 120)
    assert any("job" in line for line in lines if "not shown" in line) == (width < 120)
    assert max(map(cell_len, lines)) <= width


def test_a_table_without_rows_keeps_its_header():
    assert printed(Fitted([Column("job", "id"), Column("status")], []), 80)[1].split() == ["job", "status"]


def test_what_no_width_can_hold_is_folded_and_not_lost():
    lines = printed(Fitted([Column("id", "id"), Column("error")], [["x" * 50, "image.decoding_failed"]]), 30)
    assert sum(line.count("x") for line in lines) == 50
    assert (
        "".join(line.split()[-1] for line in lines if re.search("image|ing_|failed", line)) == "image.decoding_failed"
    )


def test_names_lose_their_middle():
    assert shortened("a/b.png", 7) == "a/b.png"
    assert shortened("holiday/0001.png", 12) == "holi…001.png"
    assert shortened("写真" * 20, 9) == "写…写真"
    assert " " not in shortened("写真" * 20, 12)


@pytest.mark.parametrize(
    "number", ["photograph_{}.png", "photograph_{}_of_the_last_evening.png", "{}_of_the_evening.png"]
)
def test_long_names_are_told_apart_in_a_narrow_terminal(cam, number):
    (cam.folder / "holiday_at_the_sea").mkdir()
    for one in ("0001", "0101", "0201"):
        shutil.copy(STAR, cam.folder / "holiday_at_the_sea" / number.format(one))
    lines = lines_in_terminal(cam, "infer", "holiday_at_the_sea", columns=40)
    rows = {line.strip() for line in lines if "…" in line}
    assert len(rows) == 3
    assert all(any(re.search(rf"{one}\S* +star", row) for row in rows) for one in ("0001", "0101", "0201"))
    assert max(map(cell_len, lines)) <= 40


def test_what_no_shortening_tells_apart_is_told_whole():
    names = ["a" * 20 + one * 20 + "c" * 20 for one in "xyz"]
    shown = told_apart([*names, names[0], "short"], 12)
    assert [shown[name].replace("\n", "") for name in names] == names
    assert shown["short"] == "short"
    assert max(cell_len(line) for text in shown.values() for line in text.split("\n")) == 12


def test_marks_stay_over_their_characters():
    around = "e\u0301" * 12
    accented = [f"{around}{one}{around}.png" for one in ("a\u0301", "a\u0300")]
    for text in (*told_apart(accented, 9).values(), *(shortened(name, width) for name in accented for width in (8, 9))):
        assert not re.search("(^|…)[\u0300\u0301]", text)
        assert cell_len(text) <= 9
    assert len(set(told_apart(accented, 9).values())) == 2


@pytest.mark.parametrize("columns", [40, 80])
def test_no_name_splits_its_row_or_commands_the_terminal(cam, columns):
    names = {
        "two\nlines.png": "two\\nlines.png",
        "\x1b]0;title\x07\x9b2J\x7f.png": "\\x7f.png",
        "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}.png": "\N{MAN}\N{WOMAN}\N{GIRL}.png",
        "\u202egnp.exe.png": "exe.png",
        "\N{HEAVY BLACK HEART}\ufe0f.png": "\N{HEAVY BLACK HEART}.png",
        "\u5199\u771f e\u0301.png": "\u5199\u771f e\u0301.png",
        "\udce9.png": "\\udce9.png",
    }
    (cam.folder / "f").mkdir()
    for name in names:
        shutil.copy(STAR, cam.folder / "f" / name)
    lines = lines_in_terminal(cam, "infer", "f", columns=columns)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u200d\u202e\ufe0f]", "".join(lines).replace("\n", ""))
    (header,) = {line.rstrip() for line in lines if "label" in line}
    place = cell_len(header[: header.index("label")])
    for end in names.values():
        (row,) = {line for line in lines if f"{end} " in line}
        assert cell_len(row[: row.index("star")]) == place
    assert "7 images, 0 failed" in "".join(lines)
    told = cam("--json", "infer", "f").stdout
    assert not re.search("[\x7f-\x9f\u200d\u202e]", told)
    assert {json.loads(line)["id"] for line in told.splitlines()} == {
        f"f/{name}".replace("\udce9", "\\udce9") for name in names
    }


def test_no_name_commands_the_terminal_in_messages_either(cam):
    name = "\x1b[31mred\nname.png"
    said = cam("infer", name, code=2).stderr
    assert said.count("\n") == 1
    assert "\\x1b[31mred\\nname.png" in said
    assert "\x1b" not in cam(f"--{name}", code=2).stderr
    assert "\x1b" not in cam("infer", "star.png", "--cam", f"{name}.jpg", code=2).stderr
    shutil.copy(STAR, cam.folder / name)
    assert "\\x1b[31mred" in cam("infer", name, f"./{name}").stderr
    assert "\x1b" not in cam("infer", name, "--cam", f"map{name}").stdout
    assert "\x1b" not in cam("upload", name).stdout
    job = cam("jobs", "submit", name).stdout.strip()
    cam("jobs", "wait", job)
    assert not any("\x1b" in line for line in lines_in_terminal(cam, "jobs", "results", job, "--csv"))
    assert name in cam("jobs", "results", job, "--csv").stdout


@pytest.mark.parametrize(
    "name", ["plain.png", "two words.png", "it's\n\\n.png", "\x1b[31m0.png", "caf\udce9.png", "a\xadb.png"]
)
def test_a_name_to_copy_is_what_a_shell_reads(name):
    word = quoted(name)
    assert printable(word) == word
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert said == name.encode(errors="surrogateescape")


def test_nothing_is_lost_where_the_output_has_fewer_characters(cam):
    said = cam("infer", "star.png", PYTHONIOENCODING="ascii").stdout
    assert re.search(r"star[ |]+star[ |]+99\.9\d%", said)
    shutil.copy(STAR, cam.folder / "\xe9.png")
    assert re.search(r"img_\w{20,}[ |]+\?\.png", cam("upload", "\xe9.png", PYTHONIOENCODING="ascii").stdout)
    (answer,) = cam.json("infer", "\xe9.png", PYTHONIOENCODING="ascii")
    assert answer["classes"]
