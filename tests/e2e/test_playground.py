"""The playground as the edge serves it; clients/web/tests use it in a browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from clients.web.generate import CHOICES, choices
from tests.conftest import Stack

ROOT = Path(__file__).parents[2]
SITE = ROOT / "clients" / "web" / "site"
FIRST_LOAD_LIMIT_BYTES = 200_000
FILES = sorted(path.name for path in SITE.iterdir())


def test_anybody_may_have_the_page(stack: Stack) -> None:
    answer = httpx.get(stack.edge_url + "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (SITE / "index.html").read_text()


@pytest.mark.parametrize("name", FILES)
def test_anybody_may_have_its_files(stack: Stack, name: str) -> None:
    answer = httpx.get(f"{stack.edge_url}/playground/{name}")
    assert answer.content == (SITE / name).read_bytes()
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    assert answer.headers["content-type"].partition(";")[0] == types[Path(name).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/playground/main.js"])
def test_the_policy_allows_what_came_with_the_page_and_nothing_else(stack: Stack, path: str) -> None:
    answer = httpx.get(stack.edge_url + path)
    policy = answer.headers["content-security-policy"]
    rules = {name: sources.split() for name, _, sources in (rule.partition(" ") for rule in policy.split("; "))}
    allowed = {source for name, sources in rules.items() if name.endswith("-src") for source in sources}
    assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == rules["base-uri"] == ["'none'"]
    assert allowed == {"'none'", "'self'", "blob:"}
    assert rules["img-src"] == ["'self'", "blob:"]
    assert rules["require-trusted-types-for"] == ["'script'"]
    assert rules["trusted-types"] == ["'none'"]


@pytest.mark.parametrize("path", ["/playground/none.js", "/playground/..main.js", "/playground/generate.py"])
def test_there_are_no_other_files(stack: Stack, path: str) -> None:
    answer = httpx.get(stack.edge_url + path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route.not_found")


def test_other_verbs_are_refused(stack: Stack) -> None:
    answer = httpx.post(stack.edge_url + "/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_the_first_load_is_small(stack: Stack) -> None:
    sizes = [len(httpx.get(f"{stack.edge_url}/playground/{name}").content) for name in FILES]
    assert sum(sizes) <= FIRST_LOAD_LIMIT_BYTES


def test_the_page_names_no_other_place() -> None:
    for path in SITE.iterdir():
        places = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
        assert places <= {"http://www.w3.org/2000/svg"}, path.name


def test_nothing_is_inline() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", (SITE / "index.html").read_text())


def test_what_the_page_knows_of_the_service_is_current() -> None:
    assert CHOICES.read_text() == choices()
