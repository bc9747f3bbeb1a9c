"""What the command line refuses before anything is sent, and what it says when the service does not do."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from clients.python.tests.command import ready
from clients.python.tests.pictures import STAR
from tests.conftest import free_ports
from tests.faults.proxy import fault_proxy

from camserve_client import Client
from camserve_client.cli.session import Noticed
from camserve_client.cli.sources import empty_image
from camserve_client.errors import CamserveError

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cam(stack, tmp_path, tenant):
    return ready(stack, tmp_path, tenant)


@pytest.fixture
def away(cam):
    """A command line that fails if it sends anything: nobody is there."""
    cam.environment |= {"CAM_ADDRESS": f"http://127.0.0.1:{free_ports(1)[0]}", "CAM_TIMEOUT": "0.5"}
    return cam


def refused(cam, *arguments, **more):
    """What wrong use is answered with, without its frame and line ends."""
    return " ".join(cam(*arguments, code=2, **more).stderr.replace("│", " ").split())


def test_the_ending_of_a_file_says_what_is_written(cam):
    cam("infer", "star.png", "--cam", "numbers.npy")
    assert np.load(cam.folder / "numbers.npy").shape == (160, 160)
    (answer,) = cam.json("infer", "star.png", "--cam", "NUMBERS.NPY")
    assert answer["heatmap"]["format"] == "npy"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("out.jpg", "ends neither in .png"),
        ("out", "ends neither in .png"),
        ("nodir/out.png", "there is no folder nodir"),
        ("star.png", "its heatmap would take its place"),
        (".", "its heatmap would take its place"),
    ],
)
def test_a_heatmap_that_cannot_be_written_is_refused_before_it_is_made(away, place, said):
    assert said in refused(away, "infer", "star.png", "--cam", place)


def test_numbers_are_not_written_into_a_picture(away):
    assert ".npy" in refused(away, "infer", "star.png", "--cam", "out.png", "--npy")


@pytest.mark.parametrize("images", [["star.png", "star.png"], ["."], ["*.png"], ["star.png", "other.png"]])
def test_heatmaps_of_several_images_go_into_a_folder_only(away, images):
    shutil.copy(STAR, away.folder / "other.png")
    (away.folder / "there").write_text("a file")
    assert "into a folder" in refused(away, "infer", *images, "--cam", "there")
    assert "into a folder" in refused(away, "infer", *images, "--cam", "maps.png")
    assert "take its place" in refused(away, "infer", *images, "--cam", ".")


def test_a_folder_takes_the_heatmap_of_one_image_too(cam):
    (cam.folder / "maps").mkdir()
    assert "in maps/star.png" in cam("infer", "star.png", "--cam", "maps").stdout
    assert (cam.folder / "maps" / "star.png").exists()


def test_what_is_named_twice_is_sent_once_and_said(cam):
    done = cam("infer", "star.png", "./star.png", "--cam", "maps")
    assert "star.png is named twice" in done.stderr
    assert "1 image, 0 failed" in done.stdout
    assert [path.name for path in (cam.folder / "maps").iterdir()] == ["star.png"]


@pytest.mark.parametrize("option", [["--layer", "x"], ["--npy"], ["--no-overlay"], ["--show"], ["--method", "gradcam"]])
def test_options_of_heatmaps_need_one(away, option):
    said = refused(away, "infer", "star.png", *option)
    assert "add --cam" in said
    assert option[0].removeprefix("--no-").strip("-") in said
    if option != ["--show"]:
        assert "add --cam" in refused(away, "jobs", "submit", "star.png", *option)


def test_what_hides_a_heatmap_needs_none(cam):
    cam("infer", "star.png", "--no-show")


def test_metadata_that_are_no_json_are_named(away):
    for text in ("nojson", "[]"):
        assert "--metadata" in refused(away, "jobs", "submit", "star.png", "--metadata", text)


def test_an_empty_image_is_not_sent(away):
    (away.folder / "zero.png").touch()
    for command in (["infer"], ["upload"], ["jobs", "submit"]):
        assert refused(away, *command, "zero.png") == "zero.png is empty"
    assert refused(away, "infer", "-", given="") == "the input is empty"
    (away.folder / "folder").mkdir()
    for name in ("one.png", "two.png"):
        (away.folder / "folder" / name).touch()
    assert refused(away, "infer", "folder") == "folder/one.png is empty, and so is every other image"


@pytest.mark.parametrize("images", [["folder"], ["folder/*.png"], ["folder/zero.png", "folder/star.png"]])
def test_empty_files_are_told_before_the_others_are_sent(cam, images):
    (cam.folder / "folder").mkdir()
    shutil.copy(STAR, cam.folder / "folder")
    (cam.folder / "folder" / "zero.png").touch()
    said = "folder/zero.png is empty, and not sent"
    done = cam("infer", *images, "--cam", "maps", code=1)
    assert done.stderr.strip() == said
    assert "99.93%" in done.stdout
    assert "2 images, 1 failed" in done.stdout
    assert [path.name for path in (cam.folder / "maps").iterdir()] == ["star.png"]
    done = cam("upload", *images, code=1)
    assert (done.stderr.strip(), done.stdout.count("img_")) == (said, 1)
    done = cam("jobs", "submit", *images, code=1)
    assert done.stderr.strip() == said
    assert "1 of 1" in cam("jobs", "wait", done.stdout.strip()).stdout


def test_the_image_beside_an_empty_file_is_named_when_it_fails(cam):
    (cam.folder / "zero.png").touch()
    (cam.folder / "bad.png").write_bytes(b"no image")
    done = cam("upload", "zero.png", "bad.png", "--json", code=1)
    assert [json.loads(line)["id"] for line in done.stderr.splitlines()] == ["zero.png", "bad.png"]


def test_a_question_without_an_answer_is_an_error_for_programs(away):
    done = away("login", "--json", given="", code=1)
    # The library that asks puts a space there.
    assert not done.stdout.strip()
    assert json.loads(done.stderr.splitlines()[-1].removeprefix("Client id:"))["error"]["code"] == "usage.invalid"


def test_programs_hear_of_empty_files_as_of_failed_ones(cam):
    (cam.folder / "zero.png").touch()
    done = cam("--json", "infer", ".", code=1)
    empty, star = (json.loads(line) for line in done.stdout.splitlines())
    told = {
        "id": "zero.png",
        "error": {"code": "image.source_required", "message": "The image is empty.", "status": 400},
    }
    assert json.loads(done.stderr) == told
    assert empty["status"] == "failed"
    assert (empty["id"], empty["error"]["code"]) == (told["id"], told["error"]["code"])
    assert star["id"] == "star.png"
    assert json.loads(cam("--json", "upload", ".", code=1).stderr) == told


def test_what_is_said_of_empty_files_is_what_the_service_says(stack):
    with Client(stack.edge_url, token=stack.token()) as client, pytest.raises(CamserveError) as refused:
        client.infer(b"", model="shapes")
    told, ours = refused.value, empty_image()
    assert (ours.code, ours.message, ours.status) == (told.code, told.message, told.status)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--json"], "Missing command"),
        (["--json", "nothing"], "No such command"),
        (["--json", "jobs"], "Missing command"),
        (["--json", "--nothing", "models"], "No such option"),
        (["infer", "--json"], "Missing argument"),
        (["infer", "star.png", "--nothing", "--json"], "No such option"),
        (["infer", "star.png", "--top-k", "0", "--json"], "--top-k"),
        (["jobs", "ls", "--json", "--status", "nothing"], "--status"),
        (["jobs", "wait", "--json", "job_x", "--timeout", "soon"], "--timeout"),
        (["infer", "--json", "star.png", "--layer", "x"], "add --cam"),
        (["infer", "--json", "star.png", "--cam", "out.jpg"], "ends neither in .png"),
        (["infer", "--json", "zero.png"], "zero.png is empty"),
        (["infer", "--json", "none.png"], "none.png: No such file"),
        (["models", "--json", "--address", "ftp://x"], "No such option"),
        (["--address", "ftp://x", "models", "--json"], "address"),
    ],
)
def test_programs_hear_of_wrong_use_in_json(away, arguments, said):
    (away.folder / "zero.png").touch()
    done = away(*arguments, code=2)
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["status"]) == ("usage.invalid", 0)
    assert said in error["message"]
    assert done.stdout == ""


def test_a_setting_that_is_wrong_is_told_in_json_too(away):
    assert "CAM_TIMEOUT" in json.loads(away("--json", "limits", code=2, CAM_TIMEOUT="x").stderr)["error"]["message"]
    assert "Usage: cam" in away("jobs", code=2).stdout


def test_json_may_stand_behind_the_command(cam):
    for arguments in (["infer", "--json", "star.png"], ["infer", "star.png", "--json"], ["models", "shapes", "--json"]):
        assert isinstance(json.loads(cam(*arguments).stdout), dict)
    assert "--json" in refused(cam, "infer", "--", "--json")


def test_help_shows_no_type_for_flags(cam):
    for command in ([], ["infer"], ["jobs"], ["jobs", "submit"]):
        said = cam(*command, "--help").stdout
        assert "<bool>" not in said
        assert "BOOLEAN" not in said


def test_who_is_not_reached_is_told_while_it_is_tried_again(away):
    away.environment["CAM_TIMEOUT"] = "4"
    address = away.environment["CAM_ADDRESS"]
    said = away("limits", code=5).stderr
    assert said.count(f"{address} cannot be reached; trying again") == 1
    assert said.index("trying again") < said.index("connection.failed")
    assert f"Is the service running at {address}? --address or CAM_ADDRESS" in said
    lines = [json.loads(line) for line in away("limits", "--json", code=5).stderr.splitlines()]
    assert lines[0] == {"retrying": address}
    assert lines[1]["error"]["code"] == "connection.failed"


def test_a_failure_that_passes_at_once_is_not_told():
    told = []
    waits = Noticed(notice=told.append)

    def fails(failures, error):
        try:
            raise error
        except CamserveError:
            waits.window_s(failures)

    fails(1, CamserveError("connection.failed", ""))
    assert told == []
    busy = CamserveError("rate.exceeded", "", status=429, retry_after_s=5)
    fails(1, busy)
    fails(2, busy)
    assert told == [busy, busy]
    late = Noticed(notice=told.append, since=time.monotonic() - 60)
    late.window_s(1)
    assert told[-1] is None


def test_a_token_that_is_refused_gets_a_hint(cam):
    assert "CAM_TOKEN" in cam("limits", code=4, CAM_TOKEN="a.b.c").stderr
    assert "cam login" in cam("limits", code=4, CAM_TOKEN="a.b.c").stderr


def test_a_login_goes_to_where_the_last_one_was(cam, stack, tenant):
    printed = stack.camserve("client", "create", "--tenant", tenant, "--scope", "inference.read").stdout
    told = dict(line.split("=", 1) for line in printed.splitlines())
    given = f"{told['client_secret']}\n"
    with fault_proxy("127.0.0.1", int(stack.edge_url.rpartition(":")[2])) as proxy:
        there = f"http://127.0.0.1:{proxy.port}"
        cam("login", "--client-id", told["client_id"], given=given, CAM_TOKEN="", CAM_ADDRESS=there)
        again = {"CAM_TOKEN": "", "CAM_ADDRESS": ""}
        assert there in cam("login", "--client-id", told["client_id"], given=given, **again).stdout
        assert cam.json("limits", **again)[0]["tenant"] == tenant
        wrong = cam("login", "--client-id", told["client_id"], given="x\n", code=4, **again)
        assert "cam login" in wrong.stderr
        # A token that is there has nothing to do with it.
        wrong = cam("login", "--client-id", told["client_id"], given="x\n", code=4, CAM_ADDRESS="")
        assert "CAM_TOKEN" not in wrong.stderr
