"""Generates the pages that the code and the protos tell; `make docs` runs it, a test compares."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from camserve_server.base.config import PREFIX, Settings
from docs.openapi import document, page
from docs.pages import contract, errors, reference

DOCS = Path(__file__).parent

SETTINGS_HEAD = """\
# Settings

Defaults, then `camserve.toml` in the working directory (or the file that `CAMSERVE_CONFIG` names), then the
environment, then flags. `camserve config` prints those in force. A value that is not allowed stops the start and names
itself. In the file the names are lowercase and without `CAMSERVE_`.

| variable | default | what it does |
|---|---|---|
"""


def settings_page() -> str:
    """Returns the page of every setting."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "bundled" if name == "models_dir" else field.default
        shown = "" if default is None or default in ((), {}) else f"`{default}`"
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |\n")
    return SETTINGS_HEAD + "".join(rows)


def reference_page() -> str:
    """Returns the page of the REST surface."""
    return page.page(document.document())


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "errors.md": errors.page,
    "api/openapi.json": document.text,
    "api/index.html": reference_page,
    "reference/README.md": reference.index,
    **{f"reference/{name}.md": partial(reference.page, name) for name in contract.FILES},
}

if __name__ == "__main__":
    for file, make in PAGES.items():
        (DOCS / file).parent.mkdir(exist_ok=True)
        (DOCS / file).write_text(make())
