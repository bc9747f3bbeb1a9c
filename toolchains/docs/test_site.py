"""The site that Sphinx makes of the pages, and what it looks like in a real Chromium."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.docs.snippets import ROOT, pages

SCREENSHOTS = ROOT / "build" / "screenshots"
WITHIN_MS = 30_000
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SHOWN = ("README", "quick-start", "reference/inference", "errors", "webhooks")
expect.set_options(timeout=WITHIN_MS)
pytestmark = pytest.mark.timeout(300)


def build(source: Path, out: Path, builder: str = "html") -> subprocess.CompletedProcess[str]:
    """Builds as `make docs-site` does."""
    options = ("--quiet", "--fail-on-warning", "--keep-going", "--fresh-env", "--conf-dir", "docs/site")
    command = (
        sys.executable,
        "-m",
        "sphinx",
        *options,
        "--builder",
        builder,
        "--doctree-dir",
        f"{out}-trees",
        source,
        out,
    )
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site."""
    out = tmp_path_factory.mktemp("site") / "html"
    done = build(ROOT, out)
    assert (done.returncode, done.stderr) == (0, "")
    return out


@pytest.fixture(scope="session")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the name is the library's)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or the one that `playwright install` brought; without either the tests fail."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture(params=["desktop light", "desktop dark", "phone light", "phone dark"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """A page in a window of a kind; a script that fails and a request to another place fail the test."""
    device, colours = request.param.split()
    context = browser.new_context(viewport=DESKTOP if device == "desktop" else PHONE, color_scheme=colours)
    opened = context.new_page()
    opened.set_default_timeout(WITHIN_MS)
    asked: list[str] = []
    problems: list[str] = []
    opened.on("request", lambda each: asked.append(each.url))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    yield opened
    context.close()
    assert not problems
    assert asked
    assert not [url for url in asked if not url.startswith((address, "data:"))]


def test_every_page_is_in_the_site(site: Path) -> None:
    for source in [*pages(), ROOT / "CHANGELOG.md", ROOT / "envoy" / "README.md"]:
        assert (site / source.relative_to(ROOT)).with_suffix(".html").exists()
    assert 'href="openapi.json"' in (site / "docs" / "api" / "index.html").read_text()
    assert (site / "docs" / "api" / "openapi.json").read_bytes() == (
        ROOT / "docs" / "api" / "openapi.json"
    ).read_bytes()


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loaded = Loaded()
    for file in site.rglob("*.html"):
        loaded.feed(file.read_text())
    for file in site.rglob("*.css"):
        assert "url(http" not in file.read_text()
        assert "@import" not in file.read_text()
    assert len(loaded.places) > 100
    assert not [place for place in loaded.places if place.startswith(("http:", "https:", "//"))]


class Loaded(HTMLParser):
    """Notes what a browser loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") and given.get("src"):
            self.places.append(given["src"] or "")
        if tag == "link" and given.get("rel") not in ("next", "prev", "canonical"):
            self.places.append(given.get("href") or "")


@pytest.mark.parametrize(
    "text",
    [
        "[x](nowhere.md)",
        "[x](other.md#nowhere)",
        "[x](#nowhere)",
        "[x](../protos/nothing.proto)",
        "## Two\n\n#### Four",
    ],
)
def test_what_is_wrong_with_a_page_stops_the_build(text: str, tmp_path: Path) -> None:
    docs = tmp_path / "source" / "docs"
    docs.mkdir(parents=True)
    (docs / "README.md").write_text("# Map\n\n## Start\n\n- [One](one.md)\n- [Other](other.md)\n")
    (docs / "one.md").write_text(f"# One\n\n{text}\n")
    (docs / "other.md").write_text("# Other\n")
    done = build(tmp_path / "source", tmp_path / "out", "dummy")
    assert done.returncode
    assert "WARNING" in done.stderr
    assert "docs/one.md" in done.stderr


def test_a_page_that_is_not_in_the_map_stops_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "source" / "docs"
    docs.mkdir(parents=True)
    (docs / "README.md").write_text("# Map\n\n## Start\n\n- [One](one.md)\n")
    (docs / "one.md").write_text("# One\n")
    assert build(tmp_path / "source", tmp_path / "out", "dummy").returncode == 0
    (docs / "other.md").write_text("# Other\n")
    done = build(tmp_path / "source", tmp_path / "out", "dummy")
    assert done.returncode
    assert "docs/other.md" in done.stderr


def test_it_fits_the_window_and_its_colours(page: Page, address: str, request: pytest.FixtureRequest) -> None:
    kind = request.node.callspec.params["page"]
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        page.goto(f"{address}/docs/{name}.html")
        expect(page.locator("article h1").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]  # type: ignore[index]
        red, *_ = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (red < 64) == kind.endswith("dark")
        page.screenshot(path=SCREENSHOTS / f"{name.replace('/', '-')}-{kind.replace(' ', '-')}.png")


def test_it_opens_with_the_map_and_leads_by_it(page: Page, address: str) -> None:
    page.goto(f"{address}/")
    page.wait_for_url("**/docs/README.html")
    if page.viewport_size == PHONE:
        page.locator(".mobile-header label[for='__navigation']").click()
    for caption in ("Start", "Concepts", "How to", "Clients", "Reference", "Operating", "About"):
        expect(page.locator(".sidebar-tree .caption-text", has_text=caption).first).to_be_visible()
    page.locator(".sidebar-tree").get_by_role("link", name="Errors", exact=True).click()
    page.wait_for_url("**/docs/errors.html")


def test_the_search_finds_a_page(page: Page, address: str) -> None:
    page.goto(f"{address}/search.html?q=idempotency+keys")
    found = page.locator("#search-results li a", has_text="Idempotency keys").first
    expect(found).to_be_visible()
    found.click()
    expect(page.locator("article h1").first).to_contain_text("Idempotency keys")
