"""The calls to paste: each runs as it stands, and answers what is on the screen."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from clients.web.tests.conftest import GOLDEN, Visit
from playwright.sync_api import Locator, expect
from tests.images import opened

ROOT = Path(__file__).parents[3]
GRPCURL = ROOT / "toolchains" / "bin" / "grpcurl"
# A name that a shell and a form would take apart.
NAME = """it's $(a) "star", 1.png"""

Run = Callable[[Visit, Locator, str], str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Copies a call of a language out of the page and runs it beside the images."""

    def paste(visit: Visit, place: Locator, language: str) -> str:
        place.get_by_role("radio", name=language, exact=True).check()
        code = place.locator("code").text_content() or ""
        path = os.pathsep.join([str(GRPCURL.parent), os.environ["PATH"]])
        environment = os.environ | {"TOKEN": visit.token(), "PATH": path}
        if language == "grpcurl":
            (tmp_path / "protos").symlink_to(ROOT / "protos")
        command = [sys.executable, "-c"] if language == "Python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*command, code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert not done.stderr
        return done.stdout

    return paste


@pytest.fixture
def classified(signed_in: Visit, tmp_path: Path) -> Visit:
    """An image with all its choices made, and shown in other colours."""
    shutil.copy(GOLDEN / "star.png", tmp_path / NAME)
    side = signed_in.side()
    side.get_by_label("Version").select_option("1")
    side.get_by_label("Method").select_option("gradcam++")
    side.get_by_label("Target class").select_option("pentagon")
    side.get_by_label("Classes shown").fill("2")
    signed_in.choose(file=tmp_path / NAME)
    signed_in.answered("star, 9")
    signed_in.page.get_by_label("Colours").select_option("viridis")
    signed_in.page.get_by_label("Opacity").fill("35")
    side.get_by_text("The call, to paste").click()
    return signed_in


def shown(visit: Visit) -> list[str]:
    return visit.side().locator("tbody tr td:first-child").all_text_contents()


def assert_as_shown(visit: Visit, png: bytes) -> None:
    """The service's own drawing is the canvas: it mixes in steps of 1/256, a browser in steps of 1/255."""
    pixels = np.array(visit.pixels(), np.int16).reshape(160, 160, 4)[..., :3]
    assert np.abs(pixels - np.asarray(opened(png).convert("RGB"), np.int16)).max() <= 2


def test_curl_answers_what_is_shown(classified: Visit, run: Run) -> None:
    answer = json.loads(run(classified, classified.side(), "curl"))
    assert [each["label"] for each in answer["classes"]] == shown(classified)
    assert (answer["model_version"], answer["heatmap"]["target"], answer["heatmap"]["method"]) == (
        "1",
        "pentagon",
        "gradcam++",
    )
    assert_as_shown(classified, base64.b64decode(answer["heatmap"]["data_b64"]))


def test_grpcurl_answers_what_is_shown(classified: Visit, run: Run) -> None:
    answer = json.loads(run(classified, classified.side(), "grpcurl"))
    assert [each["label"] for each in answer["classes"]] == shown(classified)
    assert_as_shown(classified, base64.b64decode(answer["heatmap"]["dataB64"]))


def test_python_answers_what_is_shown(classified: Visit, run: Run, tmp_path: Path) -> None:
    printed = run(classified, classified.side(), "Python").splitlines()
    assert [line.split()[1] for line in printed] == shown(classified)
    assert_as_shown(classified, (tmp_path / "heatmap.png").read_bytes())


def test_a_call_is_copied(classified: Visit) -> None:
    classified.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    classified.side().get_by_role("button", name="Copy").click()
    expect(classified.side().get_by_text("Copied.")).to_be_visible()
    assert classified.page.evaluate("() => navigator.clipboard.readText()") == (
        classified.side().locator("code").text_content()
    )


def test_without_a_clipboard_the_call_is_selected(classified: Visit) -> None:
    classified.page.evaluate("() => Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    classified.side().get_by_role("button", name="Copy").click()
    expect(classified.side().get_by_text("Selected")).to_be_visible()
    selected = classified.page.evaluate("() => getSelection().toString()")
    assert selected.strip() == (classified.side().locator("code").text_content() or "").strip()


@pytest.mark.parametrize("language", ["curl", "grpcurl", "Python"])
def test_the_call_of_a_batch_makes_and_watches_the_same_job(
    signed_in: Visit, run: Run, tmp_path: Path, language: str
) -> None:
    files = [tmp_path / NAME, tmp_path / "heart.png"]
    for source, file in zip(("star.png", "heart.png"), files, strict=True):
        shutil.copy(GOLDEN / source, file)
    signed_in.page.locator("#job-files").set_input_files(files)
    expect(signed_in.page.locator("#job-state")).to_contain_text("2 succeeded")
    place = signed_in.page.locator("#job-call")
    place.get_by_text("The call, to paste").click()
    told = run(signed_in, place, language)
    assert re.search("star", told)
    assert re.search("heart", told)
    jobs = httpx.get(
        signed_in.stack.edge_url + "/v1/jobs", headers={"Authorization": f"Bearer {signed_in.token()}"}, timeout=30
    ).json()["jobs"]
    assert [job["result_summary"] for job in jobs] == [{"items": 2, "succeeded": 2, "failed": 0}] * 2
