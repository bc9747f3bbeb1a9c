"""The snippets of the pages: what each is, who runs it, and the script that runs those of a page.

In every page each fenced block names its language. `sh`, `python`, `go`, `js` and `java` run, in the order of the page;
`json`, `yaml` and `toml` are parsed; `text` is prose. A block after `<!-- run by: FILE -->` is run by that test
instead, and so are all blocks of a page that begins with such a comment. Where a line that ends with `prints:` comes
between a `sh` block and a `text` or `json` block, the second is what the first prints.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
RUN = ("sh", "python", "go", "js", "java")
_PARSERS = {"json": json.loads, "yaml": lambda text: list(yaml.safe_load_all(text)), "toml": tomllib.loads}
_RUN_BY = re.compile(r"<!-- run by: (\S+) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `run_by` is the test that runs it, from the repository, and `prints` what it prints."""

    page: Path
    line: int
    language: str
    text: str
    run_by: str | None
    prints: Block | None = None

    @property
    def place(self) -> str:
        page = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name
        return f"{page}:{self.line}"

    @property
    def first_command(self) -> str:
        lines = (line.strip() for line in self.text.splitlines())
        return next(line for line in lines if line and not line.startswith(("#", "//")))


def pages() -> list[Path]:
    """Returns every page whose snippets count."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "clients").glob("*/README.md")]
    return sorted(page for page in found if "node_modules" not in page.parts)


def blocks(page: Path) -> list[Block]:
    """Returns the blocks of a page in its order."""
    return list(_blocks(page, MarkdownIt("commonmark").parse(page.read_text())))


def to_run(page: Path) -> list[Block]:
    """Returns the blocks of a page that no test of their own runs."""
    return [block for block in blocks(page) if block.run_by is None and block.language in RUN]


def check(block: Block) -> None:
    """Raises ValueError for a block that nothing runs, parses or reads."""
    if block.run_by is not None:
        _check_runner(block, block.run_by)
    elif block.language in _PARSERS:
        try:
            _PARSERS[block.language](block.text)
        except (ValueError, yaml.YAMLError) as error:
            raise ValueError(f"{block.place}: no {block.language}: {error}") from error
    elif block.language not in (*RUN, "text"):
        raise ValueError(f"{block.place}: nothing runs {block.language or 'a block without a language'}")


def _check_runner(block: Block, name: str) -> None:
    path = ROOT / name
    if not path.is_file() or not path.name.startswith("test_"):
        raise ValueError(f"{block.place}: there is no test {name}")
    told = path.read_text()
    folder = block.page.parent.name
    names_page = block.page.name in told and (block.page.parent == ROOT or folder in f"{name}\n{told}")
    if not names_page and block.first_command not in told:
        raise ValueError(f"{block.place}: {name} neither names the page nor has {block.first_command!r}")


def _blocks(page: Path, tokens: list[Token]) -> Iterator[Block]:
    of_page = _RUN_BY.fullmatch(tokens[0].content.strip()) if tokens else None
    shown: set[int] = set()
    for index, token in enumerate(tokens):
        if token.type != "fence" or index in shown:
            continue
        before = _RUN_BY.fullmatch(tokens[index - 1].content.strip()) if index else None
        by = before or of_page
        prints = None
        if token.info == "sh" and _promises(tokens[index + 1 : index + 5]):
            shown.add(index + 4)
            prints = _block(page, tokens[index + 4], None)
        yield _block(page, token, by and by[1], prints)


def _promises(after: list[Token]) -> bool:
    return (
        [token.type for token in after] == ["paragraph_open", "inline", "paragraph_close", "fence"]
        and after[1].content.lower().endswith("prints:")
        and after[3].info in ("text", "json")
    )


def _block(page: Path, token: Token, run_by: str | None, prints: Block | None = None) -> Block:
    assert token.map is not None
    return Block(page, token.map[0] + 1, token.info, token.content, run_by, prints)
