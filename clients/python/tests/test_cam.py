"""The command line, as it is run."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time

import pytest
from clients.python.tests.command import PROGRAM, Cam, in_terminal, ready
from clients.python.tests.pictures import STAR, noise, star_png
from tests.conftest import free_ports
from tests.e2e.receiver import receiver
from tests.faults.proxy import fault_proxy
from tests.images import GOLDEN, opened

from camserve_client import verify_webhook

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def cam(stack, tmp_path, tenant):
    return ready(stack, tmp_path, tenant)


def test_an_image_is_told_of_and_its_heatmap_written(cam):
    said = cam("infer", "star.png", "--cam", "out.png", "-k", 3).stdout
    assert "star" in said
    assert "99.9" in said
    assert "heatmap of star in out.png" in said
    assert opened((cam.folder / "out.png").read_bytes()).size == (160, 160)
    (answer,) = cam.json("infer", "star.png", "-k", 3, "--cam", "map.npy", "--npy", "--method", "eigencam")
    ids = [one["id"] for one in answer["classes"]]
    assert (ids[0], len(ids)) == ("star", 3)
    assert (answer["heatmap"]["format"], answer["heatmap"]["method"]) == ("npy", "eigencam")
    assert "data" not in answer["heatmap"]


def test_an_image_may_come_by_the_input_and_over_grpc(cam, stack):
    done = cam("--json", "infer", "-", given=star_png(), CAM_ADDRESS=f"grpc://{stack.grpc_target}")
    assert json.loads(done.stdout)["classes"][0]["id"] == "star"


def test_folders_and_patterns_are_a_batch(cam):
    shapes = cam.folder / "shapes"
    (shapes / "more").mkdir(parents=True)
    for name in ("circle", "square"):
        shutil.copy(GOLDEN / f"{name}.png", shapes)
        shutil.copy(GOLDEN / f"{name}.png", shapes / "more")
    (shapes / "notes.txt").write_text("no image")
    (shapes / ".hidden").mkdir()
    for hidden in (".hidden/star.png", "._circle.png"):
        shutil.copy(STAR, shapes / hidden)
    items = cam.json("infer", "shapes", "star.png", "--cam", "maps")
    found = {item["id"]: item["result"]["classes"][0]["id"] for item in items}
    assert found == {
        "shapes/circle.png": "circle",
        "shapes/square.png": "square",
        "shapes/more/circle.png": "circle",
        "shapes/more/square.png": "square",
        "star.png": "star",
    }
    assert sorted(path.name for path in (cam.folder / "maps").iterdir()) == [
        *("circle-2.png", "circle.png", "square-2.png", "square.png", "star.png")
    ]
    assert {item["id"]: item["heatmap_file"] for item in items}["star.png"] == "maps/star.png"
    assert "maps/star.png" in cam("infer", "shapes/circle.png", "star.png", "--cam", "maps").stdout
    assert len(cam.json("infer", "shapes/*.png")) == 2
    assert "2 images, 0 failed" in cam("infer", "shapes/*.png").stdout


def test_one_broken_image_of_many_is_told(cam):
    (cam.folder / "broken.png").write_bytes(star_png()[:200])
    said = cam("infer", "broken.png", "star.png", code=1).stdout
    assert "image.decoding_failed" in said
    assert "2 images, 1 failed" in said


def test_exit_codes_tell_what_went_wrong(cam):
    assert "model.not_found" in cam("infer", "star.png", "--model", "none", code=3).stderr
    assert "auth.invalid_token" in cam("models", code=4, CAM_TOKEN="a.b.c").stderr
    assert "nothing.png" in cam("infer", "nothing.png", code=2).stderr
    assert "no images" in cam("infer", "*.jpg", code=2).stderr
    away = {"CAM_ADDRESS": f"http://127.0.0.1:{free_ports(1)[0]}"}
    assert "connection.failed" in cam("--timeout", 0.3, "limits", code=5, **away).stderr
    (cam.folder / "login").mkdir(exist_ok=True)
    (cam.folder / "login" / "login.json").write_text("{")
    cam("limits")
    assert cam("infer", "star.png", ".", "--model", "none", code=3).stdout == ""
    cam("infer", code=2)
    cam("infer", "star.png", "--top-k", 0, code=2)
    assert "address" in cam("models", code=2, CAM_ADDRESS="ftp://x").stderr
    error = json.loads(cam("--json", "infer", "star.png", "--model", "none", code=3).stderr)["error"]
    assert (error["code"], error["status"]) == ("model.not_found", 404)
    assert error["request_id"]


def test_uploads_are_used_by_their_id(cam):
    (cam.folder / "large.png").write_bytes(noise(1300))
    stored, large = cam.json("upload", "star.png", "large.png")
    assert cam.json("infer", stored["storage_id"])[0]["classes"][0]["id"] == "star"
    assert large["size_bytes"] == len(noise(1300))
    assert large["storage_id"] in cam("upload", "large.png", "--resume", large["storage_id"]).stdout


def test_an_image_that_is_refused_costs_no_other_its_id(cam):
    (cam.folder / "broken.png").write_bytes(b"nothing")
    shutil.copy(STAR, cam.folder / "zebra.png")
    done = cam("--json", "upload", "star.png", "broken.png", "zebra.png", code=1)
    assert all(json.loads(line)["storage_id"].startswith("img_") for line in done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == 2
    told = json.loads(done.stderr)
    assert (told["id"], told["error"]["code"]) == ("broken.png", "image.invalid_format")
    assert "img_" in cam("upload", "star.png", "broken.png", code=1).stdout


def test_an_interrupted_upload_says_how_to_go_on(cam, stack):
    name = "two words.png"
    (cam.folder / name).write_bytes(noise(2700))
    with fault_proxy("127.0.0.1", int(stack.edge_url.rpartition(":")[2])) as proxy:
        # Four answers are waited for: one that begins it, and one for each piece.
        proxy.delay_s = 2.0
        environment = cam.environment | {"CAM_ADDRESS": f"http://127.0.0.1:{proxy.port}"}
        process = subprocess.Popen([*PROGRAM, "upload", name], cwd=cam.folder, env=environment, stderr=subprocess.PIPE)
        while not proxy.taken:
            time.sleep(0.01)
        time.sleep(5.0)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1].decode()
    assert process.returncode == 130
    again = shlex.split(said.partition("cam ")[2])
    assert again[:3] == ["upload", name, "--resume"]
    assert again[3] in cam(*again).stdout


def test_a_name_that_is_wrong_ends_a_batch_before_it_begins(cam):
    done = cam("infer", "star.png", "nothing.png", "--cam", "maps", code=2)
    assert "nothing.png" in done.stderr
    assert not (cam.folder / "maps").exists()


def test_what_others_named_does_not_command_the_terminal(cam):
    name = "\x1b[31mred.png"
    shutil.copy(STAR, cam.folder / name)
    said = cam("infer", name, "star.png").stdout
    assert "\x1b" not in said
    assert "red.png" in said


def test_a_job_is_followed_from_its_submission_to_its_results(cam):
    (cam.folder / "broken.png").write_bytes(b"nothing")
    job = cam("jobs", "submit", "star.png", "broken.png", "--cam", "--metadata", '{"order": 7}').stdout.strip()
    assert "1 failed" in cam("jobs", "wait", job, code=1).stdout
    info = cam.json("jobs", "get", job)[0]
    assert (info["status"], info["metadata"]) == ("succeeded", {"order": 7})
    assert job in cam("jobs", "ls", "--status", "succeeded").stdout
    assert [one["job_id"] for one in cam.json("jobs", "ls", "--limit", 1)] == [job]
    rows = list(csv.DictReader(cam("jobs", "results", job, "--csv").stdout.splitlines()))
    assert [(row["id"], row["class"], row["error"]) for row in rows] == [
        ("star.png", "star", ""),
        ("broken.png", "", "image.invalid_format"),
    ]
    assert rows[0]["heatmap"].startswith("http")
    cam("jobs", "results", job, "--jsonl", "-o", "results.jsonl")
    lines = [json.loads(line) for line in (cam.folder / "results.jsonl").read_text().splitlines()]
    assert lines[1]["error"]["code"] == "image.invalid_format"
    assert "star" in cam("jobs", "results", job).stdout
    assert "job.already_completed" in cam("jobs", "cancel", job, code=3).stderr
    cam("jobs", "results", job, "--csv", "--jsonl", code=2)
    cam("jobs", "submit", "star.png", "--metadata", "[]", code=2)


def test_a_cell_is_never_a_formula(cam):
    name = "=HYPERLINK(1).png"
    (cam.folder / name).write_bytes((cam.folder / "star.png").read_bytes())
    job = cam("jobs", "submit", name, "star.png").stdout.strip()
    cam("jobs", "wait", job)
    rows = csv.DictReader(cam("jobs", "results", job, "--csv").stdout.splitlines())
    assert [row["id"] for row in rows] == [f"'{name}", "star.png"]
    assert json.loads(cam("jobs", "results", job, "--jsonl").stdout.splitlines()[0])["id"] == name


def test_a_heatmap_is_not_written_to_standard_output(cam):
    assert "name a file" in cam("infer", "star.png", "--cam", "-", code=2).stderr
    assert not (cam.folder / "-").exists()


def test_models_limits_and_health_are_told(cam, tenant):
    assert "stable" in cam("models").stdout
    assert "pentagon" in cam("models", "shapes").stdout
    assert cam.json("models", "shapes")[0]["versions"][0]["labels"]
    assert cam.json("limits")[0]["tenant"] == tenant
    assert "images per day" in cam("limits").stdout
    assert "imaging" in cam("health", CAM_TOKEN="").stdout
    assert cam("--version").stdout.strip() == "0.1.0"


def test_the_only_model_needs_no_name(cam, stack):
    said = cam("infer", "star.png", code=2, CAM_MODEL="").stderr
    # The stack of the tests has others.
    assert "--model broken or relabelled or shapes" in said


def test_credentials_are_kept_for_their_owner_only(cam, stack, tenant):
    printed = stack.camserve("client", "create", "--tenant", tenant, "--scope", "inference.read").stdout
    told = dict(line.split("=", 1) for line in printed.splitlines())
    secret = told["client_secret"]
    signed_out = {"CAM_TOKEN": ""}
    assert "invalid_client" in cam("login", "--client-id", told["client_id"], given="x\n", code=4, **signed_out).stderr
    done = cam("login", "--client-id", told["client_id"], given=f"{secret}\n", **signed_out)
    assert secret not in done.stdout + done.stderr
    kept = cam.folder / "login" / "login.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    # The address is that of the login, and its credentials go to no other.
    elsewhere = {**signed_out, "CAM_ADDRESS": ""}
    assert cam.json("limits", **elsewhere)[0]["tenant"] == tenant
    with fault_proxy("127.0.0.1", int(stack.edge_url.rpartition(":")[2])) as proxy:
        other = {**signed_out, "CAM_ADDRESS": f"http://127.0.0.1:{proxy.port}"}
        assert "auth.missing_token" in cam("limits", code=4, **other).stderr
    cam("logout")
    assert not kept.exists()
    kept.write_text("{}")
    assert "cam login" in cam("limits", code=2, **elsewhere).stderr


def test_webhooks_are_managed(make_stack, tmp_path):
    with receiver() as server:
        stack = make_stack(webhook_allow=server.place)
        cam = Cam(tmp_path, {"CAM_ADDRESS": stack.edge_url, "CAM_TOKEN": stack.token()})
        (webhook,) = cam.json("webhooks", "create", server.url("/hook"), "--event", "job.succeeded")
        name = webhook["webhook_id"]
        assert name in cam("webhooks", "ls").stdout
        cam("webhooks", "test", name)
        (event,) = server.wait("/hook", 1)
        assert verify_webhook(event.headers, event.body, webhook["secret"]).event == "webhook.test"
        assert event.id in cam("webhooks", "deliveries", name).stdout
        assert cam.json("webhooks", "redeliver", name, event.id)[0]["event_id"] == event.id
        assert cam.json("webhooks", "rotate", name)[0]["secret"] != webhook["secret"]
        assert cam("webhooks", "secret").stdout.startswith("whsec_")
        cam("webhooks", "rm", name)
        assert cam.json("webhooks", "ls") == []
        assert "param.invalid" in cam("webhooks", "create", server.url("/"), "--event", "none", code=3).stderr


@pytest.mark.parametrize(
    ("terminal", "sign"),
    [
        ({"COLORTERM": "truecolor"}, b"\xe2\x96\x80"),
        ({"KITTY_WINDOW_ID": "1"}, b"\x1b_Ga=T,f=100,"),
        ({"TERM_PROGRAM": "iTerm.app"}, b"\x1b]1337;File=inline=1;"),
    ],
    ids=["colours", "kitty", "iterm"],
)
def test_a_heatmap_is_shown_in_terminals_that_can(cam, terminal, sign):
    assert sign in in_terminal(cam, "infer", "star.png", "--cam", "out.png", **terminal)


def test_a_heatmap_is_opened_where_the_terminal_cannot_show_it(cam):
    viewer = cam.folder / "bin" / "xdg-open"
    viewer.parent.mkdir()
    viewer.write_text('#!/bin/sh\necho "$1" > opened.part && mv opened.part opened\n')
    viewer.chmod(0o755)
    path = f"{viewer.parent}:{os.environ['PATH']}"
    in_terminal(cam, "infer", "star.png", "--cam", "out.png", PATH=path, COLORTERM="")
    while not (cam.folder / "opened").exists():
        time.sleep(0.02)
    assert (cam.folder / "opened").read_text().strip().endswith("out.png")


def test_images_are_told_of_in_a_table_that_grows(cam):
    shutil.copy(STAR, cam.folder / "another.png")
    shown = in_terminal(cam, "infer", "star.png", "another.png", COLORTERM="")
    assert b"2 of 2" in shown
    assert b"2 images, 0 failed" in shown


def test_an_interrupt_ends_it(cam):
    # A port that takes connections and says nothing.
    port = free_ports(1)[0]
    with fault_proxy("127.0.0.1", port) as proxy:
        proxy.delay_s = 3600
        environment = cam.environment | {"CAM_ADDRESS": f"http://127.0.0.1:{proxy.port}"}
        process = subprocess.Popen([*PROGRAM, "models"], env=environment, stderr=subprocess.PIPE)
        while not proxy.taken:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert b"Traceback" not in process.communicate()[1]


def test_output_that_nobody_takes_is_said_in_a_line(cam):
    with open(os.devnull, "rb") as unwritable:
        done = subprocess.run(
            [*PROGRAM, "--help"], env=cam.environment, stdout=unwritable, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("cam: ")
    assert "Traceback" not in done.stderr


def test_bash_completes_it(cam):
    asked = {"_CAM_COMPLETE": "complete_bash", "COMP_WORDS": "cam jo", "COMP_CWORD": "1"}
    assert cam("", **asked).stdout.strip() == "jobs"
