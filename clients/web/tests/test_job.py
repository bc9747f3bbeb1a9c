"""A batch: stored, made a job, and watched while it goes on."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from clients.web.tests.conftest import GOLDEN, Visit, opened_page
from PIL import Image
from playwright.sync_api import Browser, Locator, Route, expect
from tests.conftest import Stack


def state(visit: Visit) -> Locator:
    return visit.page.locator("#job-state")


def rows(visit: Visit) -> Locator:
    return visit.page.locator("#job-items tr")


def start(visit: Visit, *files: Path) -> None:
    visit.page.locator("#job-files").set_input_files(files)


def test_a_batch_is_watched_to_its_end(signed_in: Visit) -> None:
    start(signed_in, GOLDEN / "star.png", GOLDEN / "heart.png", GOLDEN / "ring.png")
    expect(state(signed_in)).to_contain_text(re.compile(r"job_\w+ succeeded: 3 succeeded, 0 failed"))
    for row, shape in zip(rows(signed_in).all(), ("star", "heart", "ring"), strict=True):
        expect(row).to_contain_text(re.compile(rf"{shape}\.png.*succeeded.*{shape}.*\d\d\.\d %"))
        expect(row.get_by_role("img")).to_have_accessible_name(re.compile(f"for {shape}$"))
    progress = signed_in.page.get_by_role("progressbar")
    assert (progress.get_attribute("max"), progress.evaluate("bar => bar.value")) == ("3", 3)
    expect(signed_in.page.locator("#limits")).to_contain_text("3 of")


def test_an_image_that_is_refused_leaves_the_others_to_the_job(signed_in: Visit, tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes((GOLDEN / "star.png").read_bytes()[:600])
    start(signed_in, tmp_path / "cut.png", GOLDEN / "star.png")
    expect(state(signed_in)).to_contain_text("succeeded: 1 succeeded, 0 failed, 1 refused.")
    expect(rows(signed_in).first).to_contain_text(re.compile(r"cut\.png.*refused.*image\.decoding_failed"))
    start(signed_in, tmp_path / "cut.png")
    expect(signed_in.page.locator("#job-failure")).to_have_text("None of these images was taken.")
    expect(state(signed_in)).to_have_text("No job was made.")


def test_a_type_that_is_not_offered_is_refused_without_a_call(signed_in: Visit, tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "party.gif")
    start(signed_in, tmp_path / "party.gif", GOLDEN / "star.png")
    expect(state(signed_in)).to_contain_text("succeeded: 1 succeeded, 0 failed, 1 refused.")
    expect(rows(signed_in).first).to_contain_text(re.compile(r"party\.gif.*refused.*of the type image/gif"))
    assert len([url for url in signed_in.requests if url.endswith("/v1/uploads")]) == 1


def test_a_heatmap_for_another_class_says_for_which(signed_in: Visit) -> None:
    signed_in.side().get_by_label("Target class").select_option("pentagon")
    start(signed_in, GOLDEN / "heart.png", GOLDEN / "pentagon.png")
    expect(state(signed_in)).to_contain_text("2 succeeded, 0 failed.")
    expect(rows(signed_in).first).to_contain_text(re.compile("heart.*explains pentagon"))
    expect(rows(signed_in).last).not_to_contain_text("explains")


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_a_batch_is_read_without_scrolling_sideways(signed_in: Visit, tmp_path: Path, width: int) -> None:
    signed_in.page.set_viewport_size({"width": width, "height": 844})
    name = "a-very-long-name-" + "that_goes_on_without_a_break" * 3 + ".png"
    (tmp_path / name).write_bytes((GOLDEN / "ring.png").read_bytes())
    (tmp_path / "cut.png").write_bytes((GOLDEN / "star.png").read_bytes()[:600])
    start(signed_in, tmp_path / name, GOLDEN / "star.png", tmp_path / "cut.png")
    expect(state(signed_in)).to_contain_text("2 succeeded, 0 failed, 1 refused")
    table = signed_in.page.get_by_role("table", name="Images of the job")
    expect(table.get_by_role("columnheader")).to_have_count(5)
    expect(table.get_by_role("rowheader", name=name)).to_be_visible()
    expect(table.get_by_role("cell", name="star", exact=True)).to_be_visible()
    expect(table.get_by_role("img", name="Heatmap of 2 star.png for star")).to_be_visible()
    for each in table.locator("tbody :is(th, td, canvas)").all():
        box = each.bounding_box()
        assert box
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert each.evaluate("cell => cell.scrollWidth - cell.clientWidth") <= 0
    panel, bar = (
        signed_in.page.locator("#job-live").bounding_box(),
        signed_in.page.get_by_role("progressbar").bounding_box(),
    )
    assert panel
    assert bar
    assert bar["width"] == panel["width"]


def test_more_images_than_a_batch_may_have_are_not_sent(signed_in: Visit, tmp_path: Path) -> None:
    names = [tmp_path / f"{number}.png" for number in range(257)]
    for name in names:
        name.write_bytes((GOLDEN / "star.png").read_bytes())
    start(signed_in, *names)
    expect(signed_in.page.locator("#job-failure")).to_contain_text("at most 256 images, and these are 257")
    assert not [url for url in signed_in.requests if url.endswith("/v1/uploads")]


def test_images_of_a_job_that_is_refused_are_removed(signed_in: Visit) -> None:
    refusal = {"error": {"code": "service.overloaded", "message": "Too much."}}
    signed_in.page.route("**/v1/jobs", lambda route: route.fulfill(status=503, json=refusal))
    with signed_in.page.expect_request(lambda request: request.method == "DELETE") as removed:
        start(signed_in, GOLDEN / "star.png")
    answer = removed.value.response()
    assert answer
    assert answer.status == 204
    expect(signed_in.page.locator("#job-failure")).to_contain_text("Too much.")


def test_a_watch_goes_on_after_the_connection_broke(signed_in: Visit) -> None:
    tries: list[str] = []

    def broken_twice(route: Route) -> None:
        tries.append(route.request.url)
        if len(tries) == 1:
            route.abort()
        elif len(tries) == 2:
            # As a proxy ends a stream in the middle: no terminal event.
            route.fulfill(status=200, content_type="application/x-ndjson", body='{"event":"heartbeat"}\n')
        else:
            route.continue_()

    signed_in.page.route("**/events", broken_twice)
    start(signed_in, GOLDEN / "star.png")
    expect(state(signed_in)).to_contain_text("succeeded: 1 succeeded")
    assert len(tries) == 3


def test_a_job_made_elsewhere_is_watched_by_its_id(signed_in: Visit) -> None:
    image = base64.b64encode((GOLDEN / "star.png").read_bytes()).decode()
    inputs = [
        {"id": "good", "image": {"bytes": image}, "grad_cam": {"enabled": True}},
        {"id": "bad", "image": {"bytes": base64.b64encode(b"no image").decode()}},
    ]
    made = httpx.post(
        signed_in.stack.edge_url + "/v1/jobs",
        headers={"Authorization": f"Bearer {signed_in.token()}"},
        json={"model": "shapes", "inputs": inputs},
        timeout=30,
    )
    signed_in.page.get_by_label("watch a job by its id").fill(made.json()["job_id"])
    signed_in.page.get_by_role("button", name="Watch").click()
    expect(state(signed_in)).to_contain_text("1 succeeded, 1 failed")
    expect(rows(signed_in).filter(has_text="bad")).to_contain_text("failed")
    assert any("/v1/objects/" in url for url in signed_in.requests)


def test_what_is_no_job_id_is_not_asked_for(signed_in: Visit) -> None:
    start(signed_in, GOLDEN / "star.png")
    expect(state(signed_in)).to_contain_text("1 succeeded")
    before = len(signed_in.requests)
    signed_in.page.get_by_label("watch a job by its id").fill("nope")
    signed_in.page.keyboard.press("Enter")
    expect(signed_in.page.locator("#job-failure")).to_contain_text("“nope” is no job id. Job ids look like job_")
    expect(rows(signed_in)).to_have_count(1)
    assert not [url for url in signed_in.requests[before:] if "/v1/jobs" in url]


def test_a_job_that_there_is_not_is_told_of(signed_in: Visit) -> None:
    signed_in.page.get_by_label("watch a job by its id").fill("job_00000000000000000000")
    signed_in.page.keyboard.press("Enter")
    expect(signed_in.page.locator("#job-failure")).to_contain_text("job.not_found")
    expect(state(signed_in)).to_contain_text("job_00000000000000000000 is not watched any more")


def test_a_job_is_canceled(
    browser: Browser, make_stack: Callable[..., Stack], context_options: dict[str, object]
) -> None:
    nobody_works = make_stack(roles="api")
    with opened_page(browser, nobody_works, context_options) as visit:
        visit.sign_in()
        start(visit, GOLDEN / "star.png", GOLDEN / "heart.png")
        expect(state(visit)).to_contain_text("queued, 0 of 2 images finished")
        visit.page.get_by_role("button", name="Cancel the job").click()
        expect(state(visit)).to_contain_text(re.compile(r"job_\w+ canceled"))
        expect(rows(visit).first).to_contain_text("canceled")
