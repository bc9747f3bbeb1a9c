"""Every link between pages leads somewhere as a code host shows them: to a file or a folder, and to a heading in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from tests.docs.snippets import ROOT, pages

PAGES = {str(page.relative_to(ROOT)): page for page in [*pages(), ROOT / "CHANGELOG.md", ROOT / "envoy" / "README.md"]}
# What a code host leaves of a heading in its anchor.
_LEFT_OUT = re.compile(r"[^\w\- ]")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    broken = [link for link in links(PAGES[name]) if not leads(PAGES[name], link)]
    assert not broken


@pytest.mark.parametrize("name", PAGES)
def test_no_two_headings_that_a_link_names_are_alike(name: str) -> None:
    named = {
        urlsplit(link).fragment for page in PAGES.values() for link in links(page) if target(page, link) == PAGES[name]
    }
    found = [anchor for anchor in anchors(PAGES[name]) if anchor in named]
    assert sorted(found) == sorted(set(found))


def test_every_page_is_in_the_map() -> None:
    reached = {target(PAGES["docs/README.md"], link) for link in links(PAGES["docs/README.md"])}
    missing = {name for name, page in PAGES.items() if page not in reached} - {"docs/README.md"}
    assert not missing


@pytest.mark.parametrize(
    "link", ["nowhere.md", "errors.md#nowhere", "#nowhere", "../docs/nothing/", "../../../etc/passwd"]
)
def test_a_broken_link_is_found(link: str) -> None:
    assert not leads(PAGES["docs/settings.md"], link)


@pytest.mark.parametrize(
    "link", ["errors.md", "errors.md#400-validation_error", "#settings", "../models/", "https://example.com/nowhere"]
)
def test_a_sound_link_is_sound(link: str) -> None:
    assert leads(PAGES["docs/settings.md"], link)


def leads(page: Path, link: str) -> bool:
    """Whether a link leads to something; those that lead out of the repository are not tried."""
    found = target(page, link)
    if found is None:
        return True
    fragment = urlsplit(link).fragment
    if not found.exists() or not found.is_relative_to(ROOT):
        return False
    return not fragment or (found.suffix == ".md" and fragment in anchors(found))


def target(page: Path, link: str) -> Path | None:
    """Returns the file that a link leads to, None for a link that leads out of the repository."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    return (page.parent / unquote(parts.path)).resolve() if parts.path else page


@cache
def links(page: Path) -> tuple[str, ...]:
    """Returns the targets of the links and images of a page."""
    return tuple(
        str(token.attrs.get("href") or token.attrs["src"])
        for token in flat(parsed(page))
        if token.type in ("link_open", "image")
    )


@cache
def anchors(page: Path) -> tuple[str, ...]:
    """Returns the anchors of the headings of a page, as a code host makes them."""
    tokens = parsed(page)
    headings = [tokens[index + 1] for index, token in enumerate(tokens) if token.type == "heading_open"]
    return tuple(anchor(heading) for heading in headings)


def anchor(heading: Token) -> str:
    text = "".join(child.content for child in heading.children or ())
    return _LEFT_OUT.sub("", text.lower()).replace(" ", "-")


def parsed(page: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text())


def flat(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from flat(token.children or [])
