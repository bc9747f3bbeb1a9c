"""One image: its classes, the heatmap over it, and the choices."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clients.web.tests.conftest import GOLDEN, Visit
from PIL import Image
from playwright.sync_api import Route, expect


@pytest.fixture
def asked(visit: Visit) -> Callable[[], list[dict[str, Any]]]:
    """Returns the requests for a classification as they were sent; Chromium shows nobody a form with files."""
    visit.page.evaluate(
        """() => {
          const send = fetch;
          window.asked = [];
          window.fetch = (path, options) => {
            if (path === "/v1/infer") window.asked.push(JSON.parse(options.body.get("request")));
            return send(path, options);
          };
        }"""
    )
    return lambda: visit.page.evaluate("() => window.asked")


def test_an_image_that_is_dropped_shows_its_classes_and_a_heatmap(
    signed_in: Visit, dropped: Callable[[str, Path], None]
) -> None:
    dropped("#drop", GOLDEN / "star.png")
    signed_in.answered("star, 9")
    side = signed_in.side()
    expect(side.locator("tbody tr")).to_have_count(5)
    expect(side.locator("tbody tr").first).to_contain_text(re.compile(r"star.*9\d\.\d %"))
    expect(side.get_by_role("img")).to_have_accessible_name("star.png, heatmap for star by gradcam at layer focus")
    assert len(signed_in.pixels()) == 160 * 160 * 4


def test_an_image_that_misses_its_place_does_not_replace_the_page(
    signed_in: Visit, dropped: Callable[[str, Path], None]
) -> None:
    dropped("header", GOLDEN / "star.png")
    expect(signed_in.work).to_be_visible()


def test_opacity_and_colours_change_without_a_call(signed_in: Visit) -> None:
    signed_in.choose()
    signed_in.answered()
    expect(signed_in.page.locator("#limits")).to_contain_text("1 of")
    before = len(signed_in.requests)
    jet = signed_in.pixels()
    signed_in.page.get_by_label("Colours").select_option("viridis")
    viridis = signed_in.pixels()
    signed_in.page.get_by_label("Opacity").fill("100")
    full = signed_in.pixels()
    signed_in.page.get_by_label("Opacity").fill("0")
    original = list(Image.open(GOLDEN / "star.png").convert("RGBA").tobytes())
    assert jet != viridis != full
    assert signed_in.pixels() == original
    expect(signed_in.page.locator("#opacity-shown")).to_have_text("0 %")
    assert signed_in.requests[before:] == []


def test_every_colour_map_of_the_service_can_be_chosen(signed_in: Visit) -> None:
    shown = signed_in.page.get_by_label("Colours").locator("option").all_text_contents()
    assert set(shown) == {"jet", "viridis", "turbo", "inferno", "magma", "plasma", "hot", "gray"}


def test_model_version_layer_method_and_target_are_asked_for(
    signed_in: Visit, asked: Callable[[], list[dict[str, Any]]]
) -> None:
    side = signed_in.side()
    side.get_by_label("Model").select_option("shapes")
    side.get_by_label("Version").select_option("1")
    layer = side.get_by_label("Layer").locator("option").nth(1).get_attribute("value")
    side.get_by_label("Layer").select_option(layer)
    side.get_by_label("Method").select_option("gradcam++")
    side.get_by_label("Target class").select_option("heart")
    side.get_by_label("Classes shown").fill("3")
    signed_in.choose()
    signed_in.answered("by shapes version 1")
    (request,) = asked()
    assert (request["model"], request["model_version"], request["classify"]) == ("shapes", "1", {"top_k": 3})
    cam = request["grad_cam"]
    assert (cam["layer"], cam["method"], cam["target"]) == (layer, "gradcam++", "heart")
    expect(side.locator("tbody tr")).to_have_count(3)
    expect(side.locator("figcaption")).to_have_text(f"heatmap for heart by gradcam++ at layer {layer}")


def test_a_model_that_cannot_answer_cannot_be_chosen(signed_in: Visit) -> None:
    side = signed_in.side()
    side.get_by_label("Model").select_option("broken")
    options = side.get_by_label("Version").locator("option")
    expect(options.last).to_have_text(re.compile("unavailable"))
    expect(options.last).to_be_disabled()


def test_any_class_can_be_explained(signed_in: Visit) -> None:
    signed_in.choose()
    signed_in.answered()
    star = signed_in.pixels()
    signed_in.side().get_by_role("button", name="Explain").nth(1).click()
    caption = signed_in.side().locator("figcaption")
    expect(caption).not_to_contain_text("for star")
    assert signed_in.pixels() != star
    expect(signed_in.side().get_by_role("button", name="Explain").nth(1)).to_have_attribute("aria-pressed", "true")


def test_a_class_is_explained_for_the_image_that_is_shown_only(signed_in: Visit) -> None:
    side = signed_in.side()
    signed_in.choose()
    signed_in.answered()
    side.get_by_role("button", name="Explain pentagon").click()
    caption = side.locator("figcaption")
    expect(caption).to_contain_text("for pentagon")
    expect(side.get_by_label("Target class")).to_have_value("")
    expect(side.get_by_text("The settings have changed")).to_have_count(0)
    side.get_by_role("button", name="Classify").click()
    expect(caption).to_contain_text("for star")
    side.get_by_role("button", name="Explain pentagon").click()
    expect(caption).to_contain_text("for pentagon")
    signed_in.choose("heart.png")
    expect(caption).to_contain_text("for heart")
    signed_in.page.locator("#job-files").set_input_files([GOLDEN / "heart.png"])
    expect(signed_in.page.locator("#job-items").get_by_role("img")).to_have_accessible_name(re.compile("for heart$"))


def test_an_answer_to_other_settings_is_marked_until_it_is_asked_for_anew(
    signed_in: Visit, asked: Callable[[], list[dict[str, Any]]]
) -> None:
    side = signed_in.side()
    signed_in.choose()
    signed_in.answered()
    mark = side.get_by_text("The settings have changed: what is shown is the answer to those before.")
    expect(mark).to_have_count(0)
    side.get_by_label("Version").select_option("1")
    expect(mark).to_be_visible()
    # What is explained is the answer that is shown.
    side.get_by_role("button", name="Explain pentagon").click()
    expect(side.locator("figcaption")).to_contain_text("for pentagon")
    expect(mark).to_be_visible()
    side.get_by_label("Version").select_option("stable")
    expect(mark).to_have_count(0)
    side.get_by_label("Classes shown").fill("3")
    expect(mark).to_be_visible()
    side.get_by_role("button", name="Classify").click()
    expect(side.locator("tbody tr")).to_have_count(3)
    expect(mark).to_have_count(0)
    assert [request["model_version"] for request in asked()] == ["stable"] * 3


def test_the_image_that_was_chosen_is_named(signed_in: Visit) -> None:
    side = signed_in.side()
    signed_in.choose()
    signed_in.answered()
    expect(side.get_by_text("star.png", exact=True)).to_be_visible()
    expect(side.get_by_role("heading", name="A")).to_have_count(0)
    signed_in.page.get_by_label("Compare two side by side").check()
    expect(side.get_by_role("heading", name="A")).to_be_visible()
    expect(signed_in.side("B").get_by_text("star.png", exact=True)).to_be_visible()
    signed_in.choose("heart.png")
    expect(side.get_by_text("heart.png", exact=True)).to_be_visible()
    expect(side.get_by_text("star.png", exact=True)).to_have_count(0)


def test_a_type_that_is_not_offered_is_not_sent(signed_in: Visit, tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "party.gif")
    signed_in.choose()
    signed_in.answered()
    before = len(signed_in.requests)
    signed_in.choose(file=tmp_path / "party.gif")
    expect(signed_in.side().get_by_role("alert")).to_have_text(
        "party.gif is of the type image/gif and was not sent. Choose a JPEG, PNG, TIFF or BMP image."
    )
    expect(signed_in.side().locator("figure")).to_be_hidden()
    assert signed_in.requests[before:] == []


def test_two_are_compared_side_by_side(signed_in: Visit, asked: Callable[[], list[dict[str, Any]]]) -> None:
    signed_in.choose()
    signed_in.answered()
    signed_in.page.get_by_label("Compare two side by side").check()
    signed_in.answered(side="B")
    second = signed_in.side("B")
    second.get_by_label("Method").select_option("layercam")
    second.get_by_role("button", name="Classify").click()
    expect(second.locator("figcaption")).to_contain_text("by layercam")
    assert [request["grad_cam"]["method"] for request in asked()] == ["gradcam", "gradcam", "layercam"]
    assert signed_in.pixels() != signed_in.pixels(side="B")
    one, other = signed_in.side("A").bounding_box(), second.bounding_box()
    assert one
    assert other
    assert one["y"] == other["y"]
    assert one["x"] + one["width"] <= other["x"]


def test_a_side_may_have_an_image_of_its_own(signed_in: Visit) -> None:
    signed_in.page.get_by_label("Compare two side by side").check()
    signed_in.choose()
    signed_in.answered(side="B")
    signed_in.side("B").get_by_label("Another image for this side").set_input_files(GOLDEN / "heart.png")
    signed_in.answered("heart, 9", side="B")
    signed_in.choose("ring.png")
    signed_in.answered("ring, 9")
    expect(signed_in.side("B").get_by_role("img")).to_have_accessible_name(re.compile(r"heart\.png"))
    signed_in.page.get_by_label("Compare two side by side").uncheck()
    signed_in.page.get_by_label("Compare two side by side").check()
    signed_in.answered("ring, 9", side="B")


def test_what_is_no_image_is_refused_with_the_reason(signed_in: Visit, tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("no image at all")
    signed_in.choose(file=tmp_path / "words.png")
    alert = signed_in.side().get_by_role("alert")
    expect(alert).to_contain_text(re.compile(r"image\.invalid_format, request [0-9a-f-]+"))
    signed_in.choose()
    signed_in.answered()
    expect(signed_in.side().get_by_role("alert")).to_have_count(0)


def test_no_answer_stands_beside_another_image_or_an_error(signed_in: Visit, tmp_path: Path) -> None:
    (tmp_path / "heart.jpg").write_bytes((GOLDEN / "heart.png").read_bytes())  # which its name belies
    signed_in.choose()
    signed_in.answered()
    signed_in.choose(file=tmp_path / "heart.jpg")
    side = signed_in.side()
    expect(side.get_by_role("alert")).to_be_visible()
    signed_in.page.get_by_label("Opacity").fill("75")
    for selector in ("figure", "table", ".call details"):
        expect(side.locator(selector).first).to_be_hidden()


def test_an_image_that_is_being_read_goes_with_its_visitor(signed_in: Visit) -> None:
    signed_in.page.evaluate(
        """() => {
          const decode = Image.prototype.decode;
          Image.prototype.decode = async function () {
            await new Promise((resolve) => setTimeout(resolve, 1500));
            window.decoded = true;
            return decode.call(this);
          };
        }"""
    )
    signed_in.choose()
    signed_in.answered("Reading star.png")
    signed_in.page.get_by_role("button", name="Sign out").click()
    signed_in.sign_in()
    signed_in.page.wait_for_function("() => window.decoded")
    signed_in.page.wait_for_timeout(500)
    signed_in.answered("No image yet.")
    expect(signed_in.side().get_by_role("button", name="Classify")).to_be_disabled()


def test_a_model_without_heatmaps_is_asked_for_classes_only(
    visit: Visit, asked: Callable[[], list[dict[str, Any]]]
) -> None:
    def without_layers(route: Route) -> None:
        answer = route.fetch()
        told = answer.json()
        for model in told["models"]:
            for version in model["versions"]:
                version["layers"] = []
        route.fulfill(response=answer, json=told)

    visit.page.route("**/v1/models", without_layers)
    visit.sign_in()
    visit.choose()
    visit.answered()
    side = visit.side()
    assert [request["grad_cam"] for request in asked()] == [{"enabled": False}]
    expect(side.locator("figcaption")).to_have_text("No heatmap")
    expect(side.get_by_label("Method")).to_be_disabled()
    expect(side.get_by_role("button", name="Explain")).to_have_count(0)
    side.locator("summary").click()
    expect(side.locator("pre")).to_contain_text('"grad_cam":{"enabled":false}')


def test_a_service_that_is_away_is_told_of_in_words(signed_in: Visit) -> None:
    signed_in.page.route("**/v1/infer", lambda route: route.abort())
    signed_in.choose()
    expect(signed_in.side().get_by_role("alert")).to_have_text("The service does not answer. Try again in a while.")
    signed_in.page.route("**/v1/limits", lambda route: route.abort())
    signed_in.page.get_by_role("button", name="Refresh").click()
    expect(signed_in.page.locator("#limits-failure")).to_contain_text("does not answer")


def test_a_refusal_says_what_the_limit_is(signed_in: Visit, tmp_path: Path) -> None:
    Image.new("L", (17_000, 300)).save(tmp_path / "wide.png")
    signed_in.choose(file=tmp_path / "wide.png")
    expect(signed_in.side().get_by_role("alert")).to_contain_text("max_side_px: 16384")


def test_an_image_that_the_browser_cannot_show_is_classified(signed_in: Visit, tmp_path: Path) -> None:
    Image.open(GOLDEN / "star.png").save(tmp_path / "star.tif")
    signed_in.choose(file=tmp_path / "star.tif")
    signed_in.answered("star, 9")
    expect(signed_in.side().locator("figcaption")).to_contain_text("heatmap for star")


def test_a_large_image_is_shown_at_most_1024_pixels_wide(signed_in: Visit, tmp_path: Path) -> None:
    Image.open(GOLDEN / "star.png").convert("RGB").resize((2400, 1200)).save(tmp_path / "wide.jpg")
    signed_in.choose(file=tmp_path / "wide.jpg")
    expect(signed_in.side().locator("figcaption")).to_be_visible()
    assert len(signed_in.pixels()) == 1024 * 512 * 4


def test_an_image_that_becomes_a_job_is_waited_for(signed_in: Visit) -> None:
    def later(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "prefer": "respond-async"})

    signed_in.page.route("**/v1/infer", later)
    signed_in.choose()
    signed_in.answered("star, 9")
    assert any("/events" in url for url in signed_in.requests)
