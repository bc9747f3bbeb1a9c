"""The site's navigation: the lists of docs/README.md, which a code host shows as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from posixpath import join, normpath

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
_ENTRY = re.compile(r"^ *- \[([^\]]+)\]\(([^)#]+)\.md\)", re.MULTILINE)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Adds the navigation to the page that is the root."""
    app.connect("source-read", _add)
    return {"version": "1", "parallel_read_safe": True}


def _add(app: Sphinx, page: str, source: list[str]) -> None:
    if page == app.config.root_doc:
        source[0] += "".join(_trees(source[0], page))


def _trees(text: str, page: str) -> Iterator[str]:
    """Yields a tree of contents for every section that has a list of links."""
    _, *parts = _SECTION.split(text)
    for caption, body in zip(parts[::2], parts[1::2], strict=True):
        entries = [f"{title} </{normpath(join(page, '..', name))}>" for title, name in _ENTRY.findall(body)]
        if entries:
            yield "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""])
