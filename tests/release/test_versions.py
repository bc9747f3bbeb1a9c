"""One version for everything that is released together, and notes for it."""

from __future__ import annotations

import json
import re
import tomllib
from xml.etree import ElementTree

import pytest
from release.build import ReleaseError, version
from release.lock import ROOT
from release.notes import notes

from camserve_client.version import VERSION as CLIENT
from camserve_conformance import VERSION as KIT


def test_every_client_has_the_version_of_the_server():
    java = "{http://maven.apache.org/POM/4.0.0}"
    folder = ROOT / "clients"
    cargo = tomllib.loads((folder / "rust" / "Cargo.toml").read_text())
    parents = [ElementTree.parse(folder / "java" / each / "pom.xml").getroot() for each in ("client", "example")]
    versions = {
        "python": CLIENT,
        "conformance": KIT,
        "typescript": json.loads((folder / "typescript" / "package.json").read_text())["version"],
        "rust": cargo["package"]["version"],
        "java": ElementTree.parse(folder / "java" / "pom.xml").getroot().findtext(f"{java}version"),
        "java, client": parents[0].findtext(f"{java}parent/{java}version"),
        "java, example": parents[1].findtext(f"{java}parent/{java}version"),
        "go": re.findall(r'"camserve-go/(.*)"', (folder / "go" / "client.go").read_text())[0],
        "cpp": re.findall(r"VERSION (\S+) LANG", (folder / "cpp" / "CMakeLists.txt").read_text())[0],
    }
    assert versions == dict.fromkeys(versions, version())


def test_notes_are_the_section_of_the_changelog():
    text = notes("Unreleased")
    assert text.startswith("## [Unreleased]\n")
    assert "\n## " not in text


def test_a_version_without_a_section_has_no_notes():
    with pytest.raises(ReleaseError, match=r"says nothing of 99\.0\.0"):
        notes("99.0.0")
