"""Every snippet of every page is run by something, or parsed, or prose that says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.printed import is_shown
from tests.docs.snippets import ROOT, blocks, check, pages, to_run

PAGES = {str(page.relative_to(ROOT)): page for page in pages()}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_left_out(name: str) -> None:
    for block in blocks(PAGES[name]):
        check(block)


def test_there_is_something_to_run() -> None:
    assert sum(len(to_run(page)) for page in PAGES.values()) > 20


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/how-to/")])
def test_a_how_to_page_that_needs_the_client_says_how_to_install_it(name: str) -> None:
    client = re.compile(r"^cam |\(cam |camserve_client", re.MULTILINE)
    needs = any(client.search(block.text) for block in blocks(PAGES[name]))
    assert not needs or ".venv/bin/pip install './clients/python[cli]'" in PAGES[name].read_text()


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("docs/")])
def test_a_program_reads_a_token_that_its_page_has_exported(name: str) -> None:
    before = ""
    for block in to_run(PAGES[name]):
        if block.language == "sh":
            before += block.text
        elif "TOKEN=$(" in before:
            read = set(re.findall(r"\b\w*TOKEN\b", block.text))
            assert read <= set(re.findall(r"\b(\w*TOKEN)=", " ".join(re.findall(r"^export .*", before, re.MULTILINE))))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```\nls\n```\n", "nothing runs a block without a language"),
        ("```ruby\nputs 1\n```\n", "nothing runs ruby"),
        ("- a list\n\n  ```ruby\n  puts 1\n  ```\n", "nothing runs ruby"),
        ("```json\n{1}\n```\n", "no json"),
        ("```yaml\na: [\n```\n", "no yaml"),
        ("```toml\na\n```\n", "no toml"),
        ("<!-- run by: tests/docs/test_nothing.py -->\n```ruby\nputs 1\n```\n", "there is no test"),
        ("<!-- run by: tests/docs/snippets.py -->\n```ruby\nputs 1\n```\n", "there is no test"),
        ("A\n\n<!-- run by: tests/e2e/test_up.py -->\n```sh\n# first\nputs 1\n```\n", "nor has 'puts 1'"),
    ],
)
def test_what_nothing_runs_is_found(text: str, why: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    (block,) = blocks(page)
    with pytest.raises(ValueError, match=why):
        check(block)


def test_what_a_snippet_prints_belongs_to_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nls\n```\n\nIt prints:\n\n```text\na\n```\n\n```sh\nls\n```\n\nor:\n\n```text\nb\n```\n")
    first, second, prose = blocks(page)
    assert first.prints is not None
    assert (first.prints.text, second.prints, prose.language) == ("a\n", None, "text")


@pytest.mark.parametrize(
    ("language", "shown", "printed"),
    [
        ("text", "a … d\n", "a b c d"),
        ("text", "a\n…\nd", "a\nb\nc\nd\n"),
        ("json", '{"a": "…", "b": {"c": "x…"}}', '{"b": {"c": "xyz"}, "a": [1, 2]}'),
        ("json", '{"a": 1, "…": "…"}', '{"a": 1, "b": 2}'),
        ("json", '[1, "…"]', "[1, 2, 3]"),
    ],
)
def test_what_is_printed_may_differ_where_the_page_says_so(language: str, shown: str, printed: str) -> None:
    assert is_shown(language, shown, printed)


@pytest.mark.parametrize(
    ("language", "shown", "printed"),
    [
        ("text", "a … d", "a b c"),
        ("text", "a.c", "abc"),
        ("json", '{"a": 1}', '{"a": 1, "b": 2}'),
        ("json", '{"a": 1, "b": "…"}', '{"a": 1}'),
        ("json", '{"a": "x…"}', '{"a": 1}'),
        ("json", '{"a": true}', '{"a": 1}'),
        ("json", '[1, "…"]', "[2]"),
        ("json", "[1]", "not found"),
    ],
)
def test_what_is_printed_may_not_differ_elsewhere(language: str, shown: str, printed: str) -> None:
    assert not is_shown(language, shown, printed)
