"""Draws the picture of docs/observability.md: `python -m toolchains.metrics.picture FILE`; needs Chromium, too."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright
from tests.conftest import start_stack, stop_stack
from toolchains.metrics.prometheus import expressions, scraping

TITLES = ("Calls by method", "Stages, p95")


def main() -> None:
    """Draws the graphs of two panels of the dashboard in Prometheus's own pages, after half a minute of calls."""
    asked = dict(expressions())
    query = urlencode(
        {
            f"g{at}.{name}": value
            for at, title in enumerate(TITLES)
            for name, value in {"expr": asked[title], "tab": 0, "range_input": "30s"}.items()
        }
    )
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with TemporaryDirectory() as name:
        stack = start_stack(Path(name) / "stack")
        try:
            with scraping(stack, Path(name), traffic_s=35.0) as api, sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=found)
                page = browser.new_page(viewport={"width": 1100, "height": 1650})
                page.goto(f"{api.base_url}/graph?{query}")
                page.get_by_text('stage="decode"').first.wait_for()
                page.wait_for_load_state("networkidle")
                page.screenshot(path=sys.argv[1])
                browser.close()
        finally:
            stop_stack(stack)


if __name__ == "__main__":
    main()
