"""Who uses a keyboard, a screen reader, a phone or dark colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from clients.web.tests.conftest import GOLDEN, Visit
from playwright.sync_api import expect

WEB = Path(__file__).parents[1]
AXE = WEB / "node_modules" / "axe-core" / "axe.min.js"
SCREENSHOTS = WEB / "screenshots"  # for people to look at
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
    "locale": "en-GB",
}
SCREENS = {
    "desktop": DESKTOP,
    "desktop, dark": DESKTOP | {"color_scheme": "dark"},
    "phone": PHONE,
    "phone, dark": PHONE | {"color_scheme": "dark"},
}
LIGHT_OVER = 0.5


@pytest.fixture(params=SCREENS)
def screen(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def context_options(screen: str) -> dict[str, object]:
    return SCREENS[screen]


def everything(visit: Visit, screenshot: Path) -> None:
    """Fills every part of the page, and keeps how it looks."""
    visit.choose()
    visit.answered()
    visit.page.get_by_label("Compare two side by side").check()
    visit.answered(side="B")
    visit.page.locator("#job-files").set_input_files([GOLDEN / "star.png", GOLDEN / "heart.png"])
    expect(visit.page.locator("#job-state")).to_contain_text("2 succeeded")
    for summary in visit.page.locator("summary").all():
        summary.click()
    visit.page.screenshot(path=screenshot, full_page=True)
    visit.side().get_by_label("Method").select_option("layercam")
    expect(visit.side().get_by_text("The settings have changed")).to_be_visible()


def violations(visit: Visit) -> list[str]:
    visit.page.evaluate(AXE.read_text())
    found = visit.page.evaluate(f"() => axe.run({{runOnly: {json.dumps(RULES)}}})")
    return [f"{each['id']}: {node['html']}" for each in found["violations"] for node in each["nodes"]]


def test_nothing_stands_in_the_way_of_assistive_technology(visit: Visit, screen: str) -> None:
    assert violations(visit) == []
    visit.sign_in()
    everything(visit, SCREENSHOTS / f"{screen}.png")
    assert violations(visit) == []


def test_nothing_is_wider_than_the_screen(visit: Visit, tmp_path: Path) -> None:
    visit.sign_in()
    everything(visit, tmp_path / "all.png")
    assert visit.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0


def test_the_colours_are_those_of_the_system(visit: Visit, screen: str) -> None:
    script = "element => getComputedStyle(element).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
    level = sum(visit.page.locator("body").evaluate(script)) / (3 * 255)
    assert (level > LIGHT_OVER) is ("dark" not in screen)


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_a_keyboard_is_enough(visit: Visit) -> None:
    page = visit.page
    # Whoever listens for the first time only now may be too late for a chooser that opens at once.
    page.on("filechooser", lambda _: None)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_label("Token", exact=True).focus()
    page.keyboard.insert_text(visit.token())
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="One image")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("#file")).to_be_focused()
    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(GOLDEN / "star.png")
    visit.answered()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Opacity")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#opacity-shown")).to_have_text("55 %")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Colours")).to_be_focused()
    page.keyboard.type("vir")
    expect(page.get_by_label("Colours")).to_have_value("viridis")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(visit.side("B")).to_be_visible()
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(visit.side().get_by_label("Method")).to_be_focused()
    page.keyboard.type("layer")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(visit.side().locator("figcaption")).to_contain_text("by layercam")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    other = page.evaluate("() => document.activeElement.dataset.id")
    page.keyboard.press("Enter")
    expect(visit.side().locator("figcaption")).to_contain_text(f"for {other}")
    expect(visit.side().get_by_role("button", name=f"Explain {other}")).to_be_focused()


@pytest.mark.parametrize("screen", ["desktop"], indirect=True)
def test_a_screen_reader_hears_what_happens(visit: Visit) -> None:
    visit.sign_in()
    visit.choose()
    said = visit.side().get_by_role("status").first
    expect(said).to_contain_text("star, 9")
    expect(said).to_have_attribute("role", "status")
    expect(visit.side().get_by_role("table", name="Probabilities")).to_be_visible()
    expect(visit.side().get_by_role("button", name="Explain star")).to_be_visible()
    expect(visit.page.get_by_role("slider", name="Opacity")).to_be_visible()
    expect(visit.page.get_by_role("combobox", name="Colours")).to_be_visible()
    for name in ("Model", "Version", "Layer", "Method", "Target class"):
        expect(visit.side().get_by_role("combobox", name=name, exact=True)).to_be_visible()
