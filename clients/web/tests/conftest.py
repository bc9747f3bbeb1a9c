"""What the playground's tests share: the running stack, and a page of it in a real Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright
from tests.conftest import Stack, make_stack, stack

__all__ = ["make_stack", "stack"]

GOLDEN = Path(__file__).parents[3] / "models" / "shapes" / "2" / "golden"
# Generous: other work runs on the machine.
WITHIN_MS = 30_000
expect.set_options(timeout=WITHIN_MS)


@dataclass
class Visit:
    """A visit to the playground by somebody of a tenant of its own."""

    page: Page
    stack: Stack
    tenant: str
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def work(self) -> Locator:
        return self.page.locator("#work")

    def side(self, name: str = "A") -> Locator:
        return self.page.locator(f"article[aria-label='Side {name}']")

    def token(self) -> str:
        return self.stack.token(tenant=self.tenant)

    def sign_in(self) -> None:
        self.page.get_by_label("Token", exact=True).fill(self.token())
        self.page.get_by_role("button", name="Sign in with the token").click()
        expect(self.page.get_by_text(f"Signed in as {self.tenant}")).to_be_visible()
        expect(self.side().get_by_label("Target class").locator("option")).to_have_count(
            11
        )  # the classes of shapes, and one more

    def choose(self, name: str = "star.png", file: Path | None = None) -> None:
        self.page.locator("#file").set_input_files(file or GOLDEN / name)

    def answered(self, words: str = "star, 9", side: str = "A") -> None:
        expect(self.side(side).get_by_role("status").first).to_contain_text(words)

    def pixels(self, selector: str = "figure canvas", side: str = "A") -> list[int]:
        """The canvas of a side, four bytes a pixel."""
        script = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
        found: list[int] = self.side(side).locator(selector).evaluate(script)
        return found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, or the one that `playwright install` brought; without either the tests fail."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found)
        yield started
        started.close()


@pytest.fixture
def context_options() -> dict[str, object]:
    """What kind of screen the visitor has; tests replace it."""
    return {"viewport": {"width": 1280, "height": 900}, "locale": "en-GB"}


@contextmanager
def opened_page(browser: Browser, stack: Stack, options: dict[str, object]) -> Iterator[Visit]:
    """The page as it opens. A script that fails, a breach of its policy and a call elsewhere fail the test."""
    context: BrowserContext = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(WITHIN_MS)
    visiting = Visit(page, stack, f"web-{uuid4().hex[:12]}")
    page.on("request", lambda request: visiting.requests.append(request.url))
    page.on("pageerror", lambda error: visiting.problems.append(str(error)))
    page.on("console", lambda message: note(visiting, message.type, message.text))
    page.goto(stack.edge_url + "/")
    yield visiting
    context.close()
    assert not visiting.problems
    strangers = [url for url in visiting.requests if not url.startswith((stack.edge_url, "blob:"))]
    assert not strangers


@pytest.fixture
def visit(browser: Browser, stack: Stack, context_options: dict[str, object]) -> Iterator[Visit]:
    with opened_page(browser, stack, context_options) as visiting:
        yield visiting


def note(visiting: Visit, kind: str, text: str) -> None:
    """Chromium writes every answer of 400 and more to the console, which is no fault of the page."""
    if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
        visiting.problems.append(text)


@pytest.fixture
def signed_in(visit: Visit) -> Visit:
    visit.sign_in()
    return visit


@pytest.fixture
def dropped(visit: Visit) -> Callable[[str, Path], None]:
    """Drops a file on a place as a person would, by the events that a browser makes of it."""

    def drop(selector: str, file: Path) -> None:
        data = visit.page.evaluate_handle(
            """([name, bytes]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], name, {type: "image/png"}));
              return data;
            }""",
            [file.name, list(file.read_bytes())],
        )
        for event in ("dragenter", "dragover", "drop"):
            visit.page.dispatch_event(selector, event, {"dataTransfer": data})

    return drop
